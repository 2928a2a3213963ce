"""A cohort is a dataset folder: same geometry and HU as its sources, nothing changed but the lesions and their edge."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import ndimage
from tests.synthesis.conftest import numbers_alone
from tests.synthesis.contract import check_contract, contents, pairs, raw

from promptlesion.data.cache import build_cache
from promptlesion.data.dataset import Dataset, image_path, label_path, open_dataset, read_case
from promptlesion.data.provenance import read_provenance
from promptlesion.data.spec import DatasetError
from promptlesion.masks.sizes_and_shapes import LesionDrawing
from promptlesion.segmentation.mixing import SegmentationData, check_subjects_apart
from promptlesion.synthesis.cohort import CohortError, synthesize_cohort
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.plan import plan_cohort
from promptlesion.synthesis.shard import Shard
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer, Synthesizer, load_synthesizer
from promptlesion.synthesis.synthetic_case import CaseMaker, Recipe
from promptlesion.training.locks import lock_if_free
from promptlesion.training.run import RunError

COUNTS = {"bright": 6, "dark": 4}
SEED = 11
CASE_KEYS = [
    "case",
    "source",
    "subject",
    "method",
    "model",
    "sampler",
    "num_steps",
    "guidance_scale",
    "seed",
    "edge_mm",
]
CASE_KEYS += ["source_sha256", "lesions"]
LESION_KEYS = ["type", "mask_origin", "center_mm", "diameter_mm", "mean_hu", "std_hu", "contrast_hu"]
LESION_KEYS += ["asked", "painted", "seam_hu", "attempts", "rejections", "is_accepted"]


@pytest.fixture(scope="session")
def cohort(
    scans: Dataset,
    synthesizer: PromptLesionSynthesizer,
    config: SynthesisConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Dataset:
    out = tmp_path_factory.mktemp("cohort") / "synthetic"
    synthesize_cohort(scans, synthesizer, counts=COUNTS, config=config, out=out, seed=SEED)
    return open_dataset(out)


def test_every_orientation_is_painted_into(cohort: Dataset, scans: Dataset) -> None:
    assert {source for _, source, _ in pairs(cohort)} == {case.name for case in scans.cases}


def test_nothing_changes_but_the_lesions_and_their_edge(cohort: Dataset, scans: Dataset) -> None:
    check_contract(cohort, scans)
    for name, source, _ in pairs(cohort):
        (_, hu), (_, before) = raw(image_path(cohort.root, name)), raw(image_path(scans.root, source))
        is_new = raw(label_path(cohort.root, name))[1] != raw(label_path(scans.root, source))[1]
        assert (hu[is_new] != before[is_new]).mean() > 0.9


def test_files_hold_hu(cohort: Dataset, scans: Dataset) -> None:
    low, high = scans.spec.window_hu
    for name, _, _ in pairs(cohort):
        image, labels = read_case(cohort, cohort.case(name))
        assert image.array.min() < -800 < low
        assert np.ptp(image.array) > 500
        painted = image.array[np.isin(labels.array, (2, 3))]
        assert low - 150 < painted.min() <= painted.max() < high + 150


def test_provenance_says_what_was_painted(
    cohort: Dataset, scans: Dataset, synthesizer: PromptLesionSynthesizer
) -> None:
    text = (cohort.root / "provenance.jsonl").read_text()
    assert [list(json.loads(line)) for line in text.splitlines()] == [CASE_KEYS] * len(cohort.cases)
    values = {lesion.name: lesion.label for lesion in scans.spec.lesions}
    for name, source, line in pairs(cohort):
        assert line["subject"] == scans.case(source).subject
        assert (line["method"], line["model"]) == ("promptlesion", synthesizer.card.model_hash)
        assert (line["sampler"], line["num_steps"], line["edge_mm"]) == ("ddim", 3, synthesizer.card.edge_mm)
        assert line["guidance_scale"] == 1.0
        image, labels = read_case(cohort, cohort.case(name))
        is_new = labels.array != read_case(scans, scans.case(source))[1].array
        parts, num_parts = ndimage.label(is_new, structure=np.ones((3, 3, 3)))
        assert num_parts == len(line["lesions"])
        for lesion in line["lesions"]:
            assert list(lesion) == LESION_KEYS
            assert (lesion["mask_origin"], lesion["attempts"], lesion["is_accepted"]) == ("ellipsoid", 1, True)
            centers = {
                part: image.affine @ [*np.argwhere(parts == part).mean(axis=0), 1] for part in range(1, num_parts + 1)
            }
            nearest = min(centers, key=lambda part: np.linalg.norm(centers[part][:3] - lesion["center_mm"]))
            assert np.linalg.norm(centers[nearest][:3] - lesion["center_mm"]) < max(image.spacing_mm)
            mask = parts == nearest
            assert set(labels.array[mask]) == {values[lesion["type"]]}
            assert image.array[mask].mean() == pytest.approx(lesion["mean_hu"], abs=0.06)
            assert image.array[mask].std() == pytest.approx(lesion["std_hu"], abs=0.06)
            volume_mm3 = mask.sum() * np.prod(image.spacing_mm)
            assert np.cbrt(6 / np.pi * volume_mm3) == pytest.approx(lesion["diameter_mm"], abs=0.01)


def test_as_many_lesions_of_each_type_as_asked_for(cohort: Dataset) -> None:
    painted = [lesion["type"] for line in read_provenance(cohort.root).values() for lesion in line["lesions"]]
    assert {name: painted.count(name) for name in COUNTS} == COUNTS


def test_a_cohort_is_a_dataset_whose_cases_belong_to_their_sources_subjects(
    cohort: Dataset, scans: Dataset, tmp_path: Path
) -> None:
    assert cohort.spec == scans.spec
    assert cohort.labels == scans.labels
    assert {case.subject for case in cohort.cases} == {case.subject for case in scans.cases}
    real, synthetic = build_cache(scans, tmp_path / "real"), build_cache(cohort, tmp_path / "synthetic")
    with pytest.raises(ValueError, match=r"expected synthetic training cases of other subjects"):
        check_subjects_apart(SegmentationData(real[:3], synthetic, real[3:], [], scans.spec, {}))
    held_out = {case.subject for case in real[3:]}
    allowed = [case for case in synthetic if case.subject not in held_out]
    check_subjects_apart(SegmentationData(real[:3], allowed, real[3:], [], scans.spec, {}))


def test_made_again_it_is_the_same_and_another_seed_is_not(
    cohort: Dataset, scans: Dataset, synthesizer: PromptLesionSynthesizer, config: SynthesisConfig, tmp_path: Path
) -> None:
    for seed in (SEED, SEED + 1):
        synthesize_cohort(scans, synthesizer, counts=COUNTS, config=config, out=tmp_path / str(seed), seed=seed)
    again, other = contents(tmp_path / str(SEED)), contents(tmp_path / str(SEED + 1))
    assert again == contents(cohort.root)
    images = [name for name in again if name.startswith("images")]
    assert not any(again[name] == other.get(name) for name in images)


@pytest.mark.parametrize("stop_after", [0, 3, 8])
def test_interrupted_and_gone_on_with_it_is_that_of_an_unbroken_run(
    noise_painter: Callable[..., Synthesizer], scans: Dataset, config: SynthesisConfig, tmp_path: Path, stop_after: int
) -> None:
    painter = noise_painter(scans.spec)
    options = {"counts": COUNTS, "config": config, "seed": SEED}
    synthesize_cohort(scans, painter, out=tmp_path / "unbroken", **options)
    out = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        synthesize_cohort(scans, noise_painter(scans.spec, stop_after=stop_after), out=out, **options)
    assert not (out / "dataset.json").exists()
    records = [json.loads(path.read_text()) for path in (out / "provenance").glob("*.json")]
    assert len(records) == (4 if stop_after == 8 else 0)  # four cases of at most two lesions are a group
    num_painted = sum(len(line["lesions"]) for record in records for line in record["cases"])
    rest = noise_painter(scans.spec)
    assert synthesize_cohort(scans, rest, out=out, **options).is_finished
    assert len(rest.calls) == len(painter.calls) - num_painted
    assert contents(out) == contents(tmp_path / "unbroken")
    seeds = [seed for call in painter.calls for seed in call]
    assert len(set(seeds)) == len(seeds) == sum(COUNTS.values())


class TestGroups:
    """Lesions of several scans are painted together."""

    COUNTS: ClassVar = {"bright": 7, "dark": 6}

    @pytest.fixture
    def grouped(self, synthesizer: PromptLesionSynthesizer) -> PromptLesionSynthesizer:
        """In float32 the tiny patch of 24 voxels makes batches of eight lesions."""
        assert synthesizer.card.batch_size == 8
        return replace(synthesizer, config=synthesizer.config.model_copy(update={"max_attempts": 2}))

    @pytest.mark.parametrize("device", ["cpu", "mps"])
    def test_whoever_works_and_stops_it_is_the_same_bit_for_bit(
        self,
        noise_painter: Callable[..., Synthesizer],
        scans: Dataset,
        filtering: SynthesisConfig,
        tmp_path: Path,
        device: str,
    ) -> None:
        """A painter whose voxels depend on the batch they are painted in; on an accelerator two threads share it."""
        asked = with_plausible(scans, (400.0, 700.0), (60.0, 90.0))
        options = {"counts": self.COUNTS, "config": filtering, "seed": SEED}

        def painter(**changes: int) -> Synthesizer:
            device_of = torch.device(device)
            return noise_painter(asked.spec, batch_size=4, is_batch_seen=True, device=device_of, **changes)

        alone = painter()
        synthesize_cohort(asked, alone, out=tmp_path / "one", **options)
        assert max(len(seeds) for seeds in alone.calls) == 4
        assert len(alone.calls) < 0.7 * sum(len(seeds) for seeds in alone.calls)
        painters = [painter() for _ in range(2)]
        for index, other in enumerate(painters):
            synthesize_cohort(asked, other, out=tmp_path / "two", shard=Shard(index, 2), **options)
        assert contents(tmp_path / "two") == contents(tmp_path / "one")
        seeds = [seed for other in painters for call in other.calls for seed in call]
        assert len(set(seeds)) == len(seeds)
        for stop_after in (1, 2, 3):
            with pytest.raises(KeyboardInterrupt):
                synthesize_cohort(asked, painter(stop_after=stop_after), out=tmp_path / "broken", **options)
            for path in list((tmp_path / "broken" / "provenance").glob("*_0000.json")):
                path.unlink()  # one case of a group is done, the other is not
        assert synthesize_cohort(asked, painter(), out=tmp_path / "broken", **options).is_finished
        assert contents(tmp_path / "broken") == contents(tmp_path / "one")

    def test_machines_of_unlike_memory_share_every_case_once(
        self, noise_painter: Callable[..., Synthesizer], scans: Dataset, config: SynthesisConfig, tmp_path: Path
    ) -> None:
        painters = [
            noise_painter(scans.spec, batch_size=batch_size, device=torch.device(device))
            for batch_size, device in ((1, "cpu"), (64, "mps"))
        ]
        options = {"counts": self.COUNTS, "config": config, "seed": SEED}
        runs = [
            synthesize_cohort(scans, painter, out=tmp_path / "two", shard=Shard(index, 2), **options)
            for index, painter in enumerate(painters)
        ]
        assert [run.is_finished for run in runs] == [False, True]
        seeds = [seed for painter in painters for call in painter.calls for seed in call]
        assert len(set(seeds)) == len(seeds) == sum(self.COUNTS.values())
        assert all(painter.calls for painter in painters)

    def test_together_or_one_by_one_differs_by_rounding_alone(
        self, grouped: PromptLesionSynthesizer, scans: Dataset, config: SynthesisConfig, tmp_path: Path
    ) -> None:
        for name, cases_together in (("together", 4), ("alone", 1)):
            planned = plan_cohort(
                scans,
                self.COUNTS,
                statistics=grouped.card.statistics,
                lesions_per_case=2,
                max_extent_mm=grouped.card.max_extent_mm,
                seed=SEED,
            )[:4]
            card = grouped.card
            drawing = LesionDrawing(card.statistics, 0.2, edge_mm=card.edge_mm, max_extent_mm=card.max_extent_mm)
            maker = CaseMaker(Recipe(scans, drawing, config, tmp_path / name, SEED), grouped)
            for first in range(0, 4, cases_together):
                maker.make(planned[first : first + cases_together])
        together, alone = (sorted((tmp_path / name).rglob("*.nii.gz")) for name in ("together", "alone"))
        assert [path.name for path in together] == [path.name for path in alone]
        assert len(together) == 8
        for first, second in zip(together, alone, strict=True):
            np.testing.assert_allclose(raw(first)[1].astype(float), raw(second)[1].astype(float), atol=1)  # rounded HU


def test_a_second_run_does_nothing(
    cohort: Dataset, scans: Dataset, synthesizer: PromptLesionSynthesizer, config: SynthesisConfig
) -> None:
    before = {path: path.stat().st_mtime_ns for path in cohort.root.rglob("*")}
    run = synthesize_cohort(scans, synthesizer, counts=COUNTS, config=config, out=cohort.root, seed=SEED)
    assert run.is_finished
    assert {path: path.stat().st_mtime_ns for path in cohort.root.rglob("*")} == before


def test_other_settings_are_refused(
    noise_painter: Callable[..., Synthesizer],
    cohort: Dataset,
    scans: Dataset,
    synthesizer: PromptLesionSynthesizer,
    config: SynthesisConfig,
) -> None:
    def again(
        *,
        counts: dict[str, int] = COUNTS,
        config: SynthesisConfig = config,
        seed: int = SEED,
        scans: Dataset = scans,
        painter: object = synthesizer,
    ) -> None:
        synthesize_cohort(scans, painter, counts=counts, config=config, out=cohort.root, seed=seed)

    with pytest.raises(RunError, match=r"config\.counts\.bright \(6 instead of 7\)"):
        again(counts={**COUNTS, "bright": 7})
    with pytest.raises(RunError, match=r"config\.num_steps \(3 instead of 4\)"):
        again(config=config.model_copy(update={"num_steps": 4}))
    with pytest.raises(RunError, match=r"seed \(11 instead of 12\)"):
        again(seed=12)
    with pytest.raises(RunError, match=r"inputs\.model"):
        again(painter=noise_painter(scans.spec))
    with pytest.raises(RunError, match=r"config\.guidance_scale \(1\.0 instead of 1\.5\)"):
        again(config=config.model_copy(update={"guidance_scale": 1.5}))
    with pytest.raises(RunError, match=r"inputs\.cases"):
        again(scans=scans.select(["ras", "lps"]))


def test_a_cohort_and_a_run_from_when_guidance_was_fitted_are_read(
    cohort: Dataset,
    scans: Dataset,
    synthesizer: PromptLesionSynthesizer,
    config: SynthesisConfig,
    tiny_diffusion_run: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "synthetic"
    shutil.copytree(cohort.root, out)
    record = json.loads((out / "run.json").read_text())
    record["inputs"]["guidance"] = "1, 1"
    (out / "run.json").write_text(json.dumps(record))
    lines = read_provenance(out)
    for line in lines.values():
        del line["guidance_scale"]
        line["guidance_scales"] = [1.0, 1.0]
    (out / "provenance.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines.values()))
    assert read_provenance(out) == lines
    assert synthesize_cohort(scans, synthesizer, counts=COUNTS, config=config, out=out, seed=SEED).is_finished

    for name in ("autoencoder", "diffusion"):
        shutil.copytree(tiny_diffusion_run.parent / name, tmp_path / name)
    (tmp_path / "diffusion" / "guidance.json").write_text("{}")
    assert load_synthesizer(tmp_path / "diffusion", config, device="cpu").card == synthesizer.card


@pytest.fixture
def filtering(config: SynthesisConfig) -> SynthesisConfig:
    return config.model_copy(update={"accept_all": False})


def with_plausible(scans: Dataset, *ranges: tuple[float, float]) -> Dataset:
    """The scans with other plausible means; where no training lesion is known, they alone decide."""
    pairs_of = zip(scans.spec.lesions, ranges, strict=True)
    lesions = tuple(lesion.model_copy(update={"hu": hu}) for lesion, hu in pairs_of)
    return replace(scans, spec=scans.spec.model_copy(update={"lesions": lesions}))


def test_implausible_lesions_are_tried_again_left_out_and_recorded(
    noise_painter: Callable[..., Synthesizer],
    scans: Dataset,
    filtering: SynthesisConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = with_plausible(scans, (400.0, 700.0), (60.0, 90.0))
    painter = noise_painter(asked.spec)
    synthesize_cohort(asked, painter, counts={"bright": 3, "dark": 2}, config=filtering, out=tmp_path, seed=SEED)
    assert "dark: 0 of 2 painted; 2 did not pass the quality filter (for example mean " in caplog.text
    made, lines = open_dataset(tmp_path), read_provenance(tmp_path)
    check_contract(made, scans)
    assert {case.name for case in made.cases} == set(lines)
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "provenance").iterdir())]
    lesions = [lesion for record in records for line in record["cases"] for lesion in line["lesions"]]
    told = {(entry["type"], entry["attempts"], len(entry["rejections"]), entry["is_accepted"]) for entry in lesions}
    assert told == {("bright", 1, 0, True), ("dark", 2, 2, False)}
    assert all("HU, expected 60 to 90" in text for entry in lesions for text in entry["rejections"])
    for name, source, line in pairs(made):
        new = raw(label_path(tmp_path, name))[1] != raw(label_path(scans.root, source))[1]
        accepted = sum(entry["is_accepted"] for entry in line["lesions"])
        assert ndimage.label(new, structure=np.ones((3, 3, 3)))[1] == accepted > 0
    seeds = [seed for call in painter.calls for seed in call]
    assert len(set(seeds)) == len(seeds) == 3 + 2 * 2


def test_the_filter_can_be_turned_off_and_its_figures_are_recorded_all_the_same(
    noise_painter: Callable[..., Synthesizer], scans: Dataset, config: SynthesisConfig, tmp_path: Path
) -> None:
    asked = with_plausible(scans, (400.0, 700.0), (60.0, 90.0))
    synthesize_cohort(asked, noise_painter(asked.spec), counts={"dark": 2}, config=config, out=tmp_path, seed=SEED)
    lesions = [lesion for line in read_provenance(tmp_path).values() for lesion in line["lesions"]]
    assert [(entry["attempts"], entry["rejections"], entry["is_accepted"]) for entry in lesions] == [(1, [], True)] * 2
    for entry in lesions:
        assert entry["mean_hu"] == pytest.approx(20, abs=15)
        assert entry["std_hu"] == pytest.approx(30, abs=10)
        assert entry["contrast_hu"] == pytest.approx(20 - 120, abs=15)
        assert entry["seam_hu"] < 1  # it painted nothing beside the mask


def test_where_nothing_passes_there_is_no_cohort(
    noise_painter: Callable[..., Synthesizer], scans: Dataset, filtering: SynthesisConfig, tmp_path: Path
) -> None:
    asked = with_plausible(scans, (0.0, 1.0), (0.0, 1.0))
    for _ in range(2):
        with pytest.raises(CohortError, match=r"no lesion could be painted. bright: 0 of 2 painted; 2 did not pass"):
            synthesize_cohort(
                asked, noise_painter(asked.spec), counts={"bright": 2}, config=filtering, out=tmp_path, seed=SEED
            )
        assert not (tmp_path / "dataset.json").exists()
        assert not (tmp_path / "imagesTr").exists()
        assert not (tmp_path / ".locks").exists()


def test_no_room_anywhere_says_why(
    noise_painter: Callable[..., Synthesizer], scans: Dataset, config: SynthesisConfig, tmp_path: Path
) -> None:
    painter = noise_painter(scans.spec, edge_mm=30.0)
    reason = r"bright: 0 of 1 painted; 1 found no room \(\w+: bright: found no place in organ"
    with pytest.raises(CohortError, match=f"no lesion could be painted. {reason}"):
        synthesize_cohort(scans, painter, counts={"bright": 1}, config=config, out=tmp_path, seed=SEED)


def test_what_finds_no_room_in_a_scan_goes_into_another(
    noise_painter: Callable[..., Synthesizer], scans: Dataset, config: SynthesisConfig, tmp_path: Path
) -> None:
    """Lesions so large that two do not fit beside each other, asked for in pairs."""
    crowded = config.model_copy(update={"lesions_per_case": 4})
    many = numbers_alone(bright=(4,), dark=(0,))
    lesions = tuple(lesion.model_copy(update={"diameter_mm": (14.0, 16.0)}) for lesion in scans.spec.lesions)
    asked = replace(scans, spec=scans.spec.model_copy(update={"lesions": lesions}))
    painter = noise_painter(asked.spec, statistics=many)
    synthesize_cohort(asked, painter, counts={"bright": 4}, config=crowded, out=tmp_path, seed=SEED)
    lines = read_provenance(tmp_path)
    assert sum(len(line["lesions"]) for line in lines.values()) == 4
    assert list(lines)[:2] == ["synthetic_0000", "synthetic_0000_2"]
    assert len({line["source"] for line in lines.values()}) == len(lines)
    made = open_dataset(tmp_path)
    check_contract(made, scans)
    assert json.loads((tmp_path / "dataset.json").read_text())["numTraining"] == len(lines) == len(made.cases)


def test_scans_without_the_host_are_passed_over_and_what_is_given_up_is_named(
    noise_painter: Callable[..., Synthesizer],
    scans: Dataset,
    config: SynthesisConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bright, dark = scans.spec.lesions
    hosted = scans.spec.model_copy(update={"lesions": (bright, dark.model_copy(update={"host": ("nowhere",)}))})
    asked = replace(scans, spec=hosted, labels={**scans.labels, "nowhere": 5})
    painter = noise_painter(hosted)
    synthesize_cohort(asked, painter, counts={"bright": 2, "dark": 2}, config=config, out=tmp_path, seed=SEED)
    assert "dark: 0 of 2 painted; 2 found no room (no scan has its host (nowhere), 2 times)" in caplog.text
    lesions = [lesion["type"] for line in read_provenance(tmp_path).values() for lesion in line["lesions"]]
    assert lesions == ["bright", "bright"]


def test_coarse_scans_and_lesions_the_model_cannot_resolve_are_named(
    noise_painter: Callable[..., Synthesizer],
    scans: Dataset,
    config: SynthesisConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fine = replace(scans, spec=scans.spec.model_copy(update={"spacing_mm": (0.5, 0.5, 1.0)})).select(
        ["ras", "permuted"]
    )
    painter = noise_painter(fine.spec, finest_mm=30.0)
    synthesize_cohort(fine, painter, counts={"bright": 2}, config=config, out=tmp_path, seed=SEED)
    assert "permuted: its voxels of 1.00 x 1.20 x 1.00 mm are far coarser than the model's of 0.50" in caplog.text
    assert "2 of 2 lesions are smaller than what the model resolves, a sphere of 30.0 mm; the smallest" in caplog.text


class TestShares:
    """Several processes that know of each other through the folder alone."""

    @pytest.fixture
    def options(self, scans: Dataset, config: SynthesisConfig) -> dict[str, object]:
        return {"counts": COUNTS, "config": config, "seed": SEED}

    def test_together_they_write_what_one_writes_and_the_last_one_finishes(
        self,
        noise_painter: Callable[..., Synthesizer],
        scans: Dataset,
        options: dict[str, object],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level("INFO")
        alone = noise_painter(scans.spec)
        assert synthesize_cohort(scans, alone, out=tmp_path / "one", **options).is_finished
        painters = [noise_painter(scans.spec) for _ in range(2)]
        for index, painter in enumerate(painters):
            assert not (tmp_path / "two" / "dataset.json").exists()
            run = synthesize_cohort(scans, painter, out=tmp_path / "two", shard=Shard(index, 2), **options)
            assert run.is_finished == (index == 1)
        assert "this shard is done; others have" in caplog.text
        assert contents(tmp_path / "two") == contents(tmp_path / "one")
        calls = [seeds for painter in painters for seeds in painter.calls]
        assert sorted(calls) == sorted(alone.calls)

    def test_a_case_that_another_process_is_making_is_left_to_it(
        self, noise_painter: Callable[..., Synthesizer], scans: Dataset, options: dict[str, object], tmp_path: Path
    ) -> None:
        painter = noise_painter(scans.spec)
        with lock_if_free(tmp_path / ".locks" / "synthetic_0001.lock") as is_free:
            assert is_free
            assert not synthesize_cohort(scans, painter, out=tmp_path, **options).is_finished
        assert not (tmp_path / "provenance" / "synthetic_0001.json").exists()
        assert (tmp_path / "provenance" / "synthetic_0004.json").exists()  # of the next group
        first = set(painter.calls)
        painter.calls.clear()
        assert synthesize_cohort(scans, painter, out=tmp_path, **options).is_finished
        assert set(painter.calls) < first  # its group once more, to write what was left out, and no other
        assert not (tmp_path / ".locks").exists()

    def test_what_killed_processes_left_is_gone_at_the_end(
        self, noise_painter: Callable[..., Synthesizer], scans: Dataset, options: dict[str, object], tmp_path: Path
    ) -> None:
        (tmp_path / "provenance").mkdir()
        (tmp_path / "provenance" / ".partial.synthetic_0000.json").write_bytes(b"half")
        synthesize_cohort(scans, noise_painter(scans.spec), out=tmp_path, **options)
        assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]

    def test_other_scans_of_the_same_names_are_refused(
        self, noise_painter: Callable[..., Synthesizer], scans: Dataset, options: dict[str, object], tmp_path: Path
    ) -> None:
        root = tmp_path / "scans"
        shutil.copytree(scans.root, root)
        copied = open_dataset(root)
        painter = noise_painter(scans.spec, stop_after=8)  # the first group is done
        with pytest.raises(KeyboardInterrupt):
            synthesize_cohort(copied, painter, out=tmp_path / "out", **options)
        source = json.loads((tmp_path / "out/provenance/synthetic_0000.json").read_text())["cases"][0]["source"]
        path = image_path(root, source)
        content = bytearray(path.read_bytes())
        content[9] ^= 1  # of gzip's header: another file of the same size that holds the same scan
        path.write_bytes(content)
        with pytest.raises(
            RunError, match=rf"{source}: expected the scan and label map that synthetic_0000 was painted"
        ):
            synthesize_cohort(copied, noise_painter(scans.spec), out=tmp_path / "out", **options)


def test_a_folder_without_provenance_is_one_of_real_scans(cohort: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(cohort.root, copy)
    (copy / "provenance.jsonl").unlink()
    assert read_provenance(copy) == {}
    assert {case.subject for case in open_dataset(copy).cases} == {case.name for case in cohort.cases}
    with pytest.raises(DatasetError):
        open_dataset(copy).case("ras")
