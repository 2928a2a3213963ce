"""A cohort is a dataset folder: same geometry and HU as its sources, nothing changed but the lesions and their edge."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from promptlesion.data.cache import build_cache
from promptlesion.data.dataset import Dataset, image_path, label_path, open_dataset, read_case
from promptlesion.data.provenance import read_provenance
from promptlesion.data.spec import DatasetError, DatasetSpec
from promptlesion.data.splits import Split
from promptlesion.segmentation.mixing import check_subjects_apart
from promptlesion.synthesis.cohort import parse_counts, plan_cohort, source_scans, synthesize_cohort
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.placement import PlacementError
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer, Synthesizer
from promptlesion.training.run import RunError

COUNTS = {"bright": 6, "dark": 4}
SEED = 11
CASE_KEYS = ["case", "source", "subject", "method", "model", "sampler", "num_steps", "seed", "edge_mm", "lesions"]
LESION_KEYS = ["type", "mask_origin", "center_mm", "diameter_mm", "mean_hu", "attempts", "is_accepted"]


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


def raw(path: Path) -> tuple[nib.Nifti1Image, np.ndarray]:
    """A file and its voxels as they are stored, in the order of the file."""
    image = nib.load(path)
    return image, np.asarray(image.dataobj)


def contents(root: Path) -> dict[str, bytes]:
    """Every file but the run's record, which holds times."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "run.json")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def pairs(cohort: Dataset, scans: Dataset) -> list[tuple[str, str, dict[str, object]]]:
    lines = read_provenance(cohort.root)
    return [(case.name, str(lines[case.name]["source"]), lines[case.name]) for case in cohort.cases]


def test_every_orientation_is_painted_into(cohort: Dataset, scans: Dataset) -> None:
    assert {source for _, source, _ in pairs(cohort, scans)} == {case.name for case in scans.cases}


def test_geometry_and_type_are_the_sources_bit_for_bit(cohort: Dataset, scans: Dataset) -> None:
    for name, source, _ in pairs(cohort, scans):
        for path_of in (image_path, label_path):
            made, array = raw(path_of(cohort.root, name))
            origin, before = raw(path_of(scans.root, source))
            assert made.affine.tobytes() == origin.affine.tobytes()
            assert array.dtype == before.dtype
            for key in ("dim", "pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b"):
                assert made.header[key].tobytes() == origin.header[key].tobytes(), key
            assert (made.dataobj.slope, made.dataobj.inter) == (1, 0)


def test_another_reader_sees_the_same_geometry_and_voxels(cohort: Dataset, scans: Dataset) -> None:
    for name, source, _ in pairs(cohort, scans):
        made, origin = (sitk.ReadImage(image_path(d.root, n)) for d, n in ((cohort, name), (scans, source)))
        assert made.GetSize() == origin.GetSize()
        assert made.GetSpacing() == origin.GetSpacing()
        assert made.GetOrigin() == origin.GetOrigin()
        assert made.GetDirection() == origin.GetDirection()
        assert made.GetPixelID() == origin.GetPixelID()
        stored = raw(image_path(cohort.root, name))[1]
        assert np.array_equal(sitk.GetArrayFromImage(made).transpose(), stored)


def test_nothing_changes_but_the_lesions_and_their_edge(cohort: Dataset, scans: Dataset) -> None:
    for name, source, line in pairs(cohort, scans):
        made, hu = raw(image_path(cohort.root, name))
        before = raw(image_path(scans.root, source))[1]
        labels, labels_before = (raw(label_path(d.root, n))[1] for d, n in ((cohort, name), (scans, source)))
        is_new = labels != labels_before
        assert is_new.any()
        distance = ndimage.distance_transform_edt(~is_new, sampling=made.header.get_zooms())
        far = distance >= line["edge_mm"]
        assert hu[far].tobytes() == before[far].tobytes()
        assert (hu[is_new] != before[is_new]).mean() > 0.9
        assert set(np.unique(labels[is_new])) <= {2, 3}
        assert set(np.unique(labels_before[is_new])) == {1}
        assert not is_new[labels_before == 4].any()
        existing = np.isin(labels_before, (2, 3))
        assert hu[existing].tobytes() == before[existing].tobytes()


def test_files_hold_hu(cohort: Dataset, scans: Dataset) -> None:
    low, high = scans.spec.window_hu
    for name, _, _ in pairs(cohort, scans):
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
    for name, source, line in pairs(cohort, scans):
        assert line["subject"] == scans.case(source).subject
        assert (line["method"], line["model"]) == ("promptlesion", synthesizer.model_hash)
        assert (line["sampler"], line["num_steps"], line["edge_mm"]) == ("ddim", 3, synthesizer.edge_mm)
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
        check_subjects_apart(real_cases=real[:3], synthetic_cases=synthetic, validation_cases=real[3:])
    held_out = {case.subject for case in real[3:]}
    allowed = [case for case in synthetic if case.subject not in held_out]
    check_subjects_apart(real_cases=real[:3], synthetic_cases=allowed, validation_cases=real[3:])


def test_made_again_it_is_the_same_and_another_seed_is_not(
    cohort: Dataset, scans: Dataset, synthesizer: PromptLesionSynthesizer, config: SynthesisConfig, tmp_path: Path
) -> None:
    for seed in (SEED, SEED + 1):
        synthesize_cohort(scans, synthesizer, counts=COUNTS, config=config, out=tmp_path / str(seed), seed=seed)
    again, other = contents(tmp_path / str(SEED)), contents(tmp_path / str(SEED + 1))
    assert again == contents(cohort.root)
    images = [name for name in again if name.startswith("images")]
    assert not any(again[name] == other.get(name) for name in images)


@pytest.mark.parametrize("stop_after", [0, 1, 3])
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
    rest = noise_painter(scans.spec)
    assert synthesize_cohort(scans, rest, out=out, **options).is_finished
    assert len(rest.calls) == len(painter.calls) - stop_after
    assert contents(out) == contents(tmp_path / "unbroken")
    seeds = [seed for call in painter.calls for seed in call]
    assert len(set(seeds)) == len(seeds) == sum(COUNTS.values())


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
    with pytest.raises(RunError, match=r"inputs\.cases"):
        again(scans=scans.select(["ras", "lps"]))


def test_implausible_lesions_are_tried_again_left_out_and_recorded(
    noise_painter: Callable[..., Synthesizer],
    scans: Dataset,
    config: SynthesisConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bright, dark = scans.spec.lesions
    spec = scans.spec.model_copy(
        update={
            "lesions": (bright.model_copy(update={"hu": (400.0, 700.0)}), dark.model_copy(update={"hu": (60.0, 90.0)}))
        }
    )
    painter = noise_painter(spec)
    synthesize_cohort(
        replace(scans, spec=spec), painter, counts={"bright": 2, "dark": 2}, config=config, out=tmp_path, seed=SEED
    )
    assert "2 of 4 lesions were not plausible after 2 attempts and were left out" in caplog.text
    made = open_dataset(tmp_path)
    lesions = [lesion for line in read_provenance(tmp_path).values() for lesion in line["lesions"]]
    assert {(entry["type"], entry["attempts"], entry["is_accepted"]) for entry in lesions} == {
        ("bright", 1, True),
        ("dark", 2, False),
    }
    for case in made.cases:
        line = read_provenance(tmp_path)[case.name]
        labels = read_case(made, case)[1].array
        before = read_case(scans, scans.case(line["source"]))[1].array
        accepted = sum(entry["is_accepted"] for entry in line["lesions"])
        assert ndimage.label(labels != before, structure=np.ones((3, 3, 3)))[1] == accepted
        assert np.array_equal(labels == 3, before == 3)


def test_no_room_anywhere_says_why(
    noise_painter: Callable[..., Synthesizer], scans: Dataset, config: SynthesisConfig, tmp_path: Path
) -> None:
    painter = noise_painter(scans.spec, edge_mm=30.0)
    with pytest.raises(PlacementError, match=r"synthetic_0000: no scan has room for it\. \w+: \w+: found no place in"):
        synthesize_cohort(scans, painter, counts={"bright": 1}, config=config, out=tmp_path, seed=SEED)


class TestPlan:
    def test_counts_are_honoured_in_as_few_cases_as_hold_them(self, scans: Dataset) -> None:
        planned = plan_cohort(scans, {"bright": 7, "dark": 4}, lesions_per_case=3, seed=0)
        assert [case.name for case in planned] == [
            "synthetic_0000",
            "synthetic_0001",
            "synthetic_0002",
            "synthetic_0003",
        ]
        types = [kind for case in planned for kind in case.types]
        assert (types.count(0), types.count(1)) == (7, 4)
        assert max(len(case.types) for case in planned) == 3
        assert all(list(case.types) == sorted(case.types) for case in planned)

    def test_types_are_mixed(self, scans: Dataset) -> None:
        planned = plan_cohort(scans, {"bright": 20, "dark": 20}, lesions_per_case=4, seed=0)
        assert sum(len(set(case.types)) == 2 for case in planned) > 5
        assert planned == plan_cohort(scans, {"bright": 20, "dark": 20}, lesions_per_case=4, seed=0)
        assert planned != plan_cohort(scans, {"bright": 20, "dark": 20}, lesions_per_case=4, seed=1)

    def test_one_type_alone(self, scans: Dataset) -> None:
        planned = plan_cohort(scans, {"dark": 2}, lesions_per_case=3, seed=0)
        assert [case.types for case in planned] == [(1, 1)]

    def test_an_unknown_type_is_named(self, scans: Dataset) -> None:
        with pytest.raises(ValueError, match=r"--count grey=2: expected one of the lesion types bright, dark; found"):
            plan_cohort(scans, {"grey": 2}, lesions_per_case=3, seed=0)

    @pytest.mark.parametrize("counts", [{}, {"bright": 0, "dark": 0}])
    def test_nothing_to_paint_is_refused(self, scans: Dataset, counts: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="expected at least one lesion of bright, dark; found none"):
            plan_cohort(scans, counts, lesions_per_case=3, seed=0)


def test_counts_are_read() -> None:
    assert parse_counts(["calcified_plaque=20", "non_calcified_plaque=0"]) == {
        "calcified_plaque": 20,
        "non_calcified_plaque": 0,
    }


@pytest.mark.parametrize("texts", [["plaque"], ["plaque="], ["plaque=-1"], ["plaque=1.5"], ["a=1", "a=2"]])
def test_other_counts_are_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=rf"--count {texts[-1]}: expected TYPE=N, every type once"):
        parse_counts(texts)


def test_scans_are_those_of_training_subjects(
    noise_painter: Callable[..., Synthesizer], scans: Dataset, tiny_spec: DatasetSpec
) -> None:
    split = Split(train=("ras", "lps"), validation=("permuted",), test=("oblique", "oblique_permuted"))
    kept = source_scans(scans, noise_painter(tiny_spec), split)
    assert {case.name for case in kept.cases} == {"ras", "lps"}


def test_a_model_of_other_lesion_types_is_refused(
    noise_painter: Callable[..., Synthesizer], scans: Dataset, tiny_spec: DatasetSpec
) -> None:
    other = tiny_spec.model_copy(update={"lesions": tiny_spec.lesions[::-1], "spacing_mm": (1.0, 1.0, 1.0)})
    split = Split(train=("ras",), validation=("lps",), test=("permuted",))
    differing = (
        r"spacing_mm \(\[1.0, 1.0, 1.5\] instead of \[1.0, 1.0, 1.0\]\); "
        r"lesion_types \(\['bright', 'dark'\] instead of \['dark', 'bright'\]\)"
    )
    with pytest.raises(ValueError, match=f"the one the model was trained on; found one with other {differing}"):
        source_scans(scans, noise_painter(other), split)


def test_a_folder_without_provenance_is_one_of_real_scans(cohort: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(cohort.root, copy)
    (copy / "provenance.jsonl").unlink()
    assert read_provenance(copy) == {}
    assert {case.subject for case in open_dataset(copy).cases} == {case.name for case in cohort.cases}
    with pytest.raises(DatasetError):
        open_dataset(copy).case("ras")
