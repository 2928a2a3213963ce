"""The whole loop on a tiny dataset: everything is written, agrees, and is not done twice."""

import json
from pathlib import Path

import pytest

from promptlesion.config import Config, DemoConfig
from promptlesion.data.dataset import Dataset, open_dataset
from promptlesion.data.provenance import read_provenance
from promptlesion.experiment.demo import run_demo
from promptlesion.experiment.results import ExperimentResults
from promptlesion.training.run import RunError

Finished = tuple[ExperimentResults, Path]


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> Config:
    return tiny_config.model_copy(update={"demo": DemoConfig(synthetic_cases=4, prompt_switch_lesions=2)})


@pytest.fixture(scope="module")
def finished(tiny_data: Dataset, config: Config, any_hu: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    out = tmp_path_factory.mktemp("demo") / "out"
    results, was_work = run_demo(
        out=out, config=config, seed=1, device="cpu", command="promptlesion demo", data=tiny_data.root, lesions=any_hu
    )
    assert was_work
    return results, out


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

    def test_the_results_are_those_of_the_file_and_say_what_was_done(self, finished: Finished, config: Config) -> None:
        results, out = finished
        assert ExperimentResults.model_validate_json((out / "results.json").read_bytes()) == results
        assert results.configuration == config.model_dump(mode="json")
        assert (results.seed, results.command) == (1, "promptlesion demo")
        summary = results.dataset
        assert (summary.num_train_cases, summary.num_validation_cases, summary.num_test_cases) == (2, 1, 1)
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

    def test_run_again_there_is_nothing_to_do(
        self, finished: Finished, tiny_data: Dataset, config: Config, any_hu: Path
    ) -> None:
        results, out = finished
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        again, was_work = run_demo(
            out=out, config=config, seed=1, device="cpu", command="again", data=tiny_data.root, lesions=any_hu
        )
        assert (again, was_work) == (results, False)
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before

    def test_another_seed_or_setting_is_refused(
        self, finished: Finished, tiny_data: Dataset, config: Config, any_hu: Path
    ) -> None:
        other = config.model_copy(update={"demo": DemoConfig(synthetic_cases=5, prompt_switch_lesions=2)})
        for options in ({"seed": 2, "config": config}, {"seed": 1, "config": other}):
            with pytest.raises(RunError, match="expected a run with the asked-for settings"):
                run_demo(out=finished[1], device="cpu", command="again", data=tiny_data.root, lesions=any_hu, **options)
