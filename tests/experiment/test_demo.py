"""The whole loop on a tiny dataset: everything is written, agrees, and is not done twice."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from promptlesion.config import Config, DemoConfig
from promptlesion.data.dataset import Dataset, open_dataset
from promptlesion.data.provenance import read_provenance
from promptlesion.experiment.demo import run_demo
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.results import ExperimentResults
from promptlesion.training.run import RunError

Finished = tuple[ExperimentResults, Path]


@pytest.fixture(scope="module")
def experiment(
    tiny_data: Dataset, any_hu: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory
) -> Experiment:
    config = tiny_config.model_copy(update={"demo": DemoConfig(prompt_switch_lesions=2)})
    out = tmp_path_factory.mktemp("demo") / "out"
    return Experiment(tiny_data.root, any_hu, out, config, 1, "cpu", num_synthetic_cases=4)


@pytest.fixture(scope="module")
def finished(experiment: Experiment) -> Finished:
    return run_demo(experiment, command="promptlesion demo"), experiment.out


class TestDemo:
    def test_every_folder_is_there(self, finished: Finished) -> None:
        _, out = finished
        stages = ("autoencoder", "diffusion", "segmentation/real", "segmentation/mixed")
        for folder in (*stages, "synthetic", "."):
            assert json.loads((out / folder / "run.json").read_text())["is_finished"], folder
        assert all((out / stage / "checkpoint" / "card.json").is_file() for stage in stages)
        assert (out / "report.html").stat().st_size > 10_000
        assert {path.stem for path in (out / "figures").glob("*.png")} >= {"figure1", "overview", "dice"}
        for name in ("real", "mixed"):
            assert len(list((out / "segmentation" / name / "predictions").glob("*.nii.gz"))) == 1

    def test_the_results_are_those_of_the_file_and_say_what_was_done(
        self, finished: Finished, experiment: Experiment
    ) -> None:
        results, out = finished
        assert ExperimentResults.model_validate_json((out / "results.json").read_bytes()) == results
        assert results.configuration == experiment.config.model_dump(mode="json")
        assert (results.seed, results.command) == (1, "promptlesion demo")
        summary = results.dataset
        assert summary.num_cases == {"train": 2, "validation": 1, "test": 1}
        (comparison,), (fidelity,) = results.comparisons, results.fidelity
        assert (comparison.num_synthetic_cases, summary.is_phantom) == ({"promptlesion": 4}, False)
        assert [time.name for time in results.times] == [
            "data",
            "autoencoder",
            "diffusion",
            "synthetic",
            "segmentation/real",
            "segmentation/mixed",
            "fidelity",
        ]
        assert {row.method for row in comparison.rows} == {"real", "promptlesion"}
        assert {row.lesion_type for row in comparison.rows_of("surface_dice")} >= {"bright", "dark"}
        assert {row.compared for row in fidelity.intensity} == {"autoencoded", "synthetic"}
        assert fidelity.prompt_switch is not None and fidelity.prompt_switch.num_lesions == 2
        assert not results.unfinished

    def test_synthetic_cases_come_from_training_subjects_alone(self, finished: Finished, tiny_data: Dataset) -> None:
        _, out = finished
        synthetic = open_dataset(out / "synthetic")
        assert len(synthetic.cases) == 4
        predicted = {
            path.name.removesuffix(".nii.gz") for path in (out / "segmentation").glob("*/predictions/*.nii.gz")
        }
        sources = {line["source"] for line in read_provenance(synthetic.root).values()}
        assert len(predicted) == 1
        assert len(sources) == 2
        assert not sources & predicted
        assert sources < {case.name for case in tiny_data.cases}

    def test_run_again_there_is_nothing_to_do(self, finished: Finished, experiment: Experiment) -> None:
        results, out = finished
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        assert run_demo(replace(experiment), command="again") == results
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before

    def test_another_seed_or_setting_or_version_is_refused(self, finished: Finished, experiment: Experiment) -> None:
        other = experiment.config.model_copy(update={"demo": DemoConfig(prompt_switch_lesions=3)})
        for changed in ({"seed": 2}, {"config": other}):
            with pytest.raises(RunError, match="expected a run with the asked-for settings"):
                run_demo(replace(experiment, **changed), command="again")
        record = finished[1] / "run.json"
        written = record.read_text()
        content = json.loads(written)
        del content["inputs"]["lesions"]
        record.write_text(json.dumps(content))
        with pytest.raises(RunError, match=r"other inputs.lesions .* Choose another --out, or remove the folder"):
            run_demo(replace(experiment), command="again")
        record.write_text(written)
