"""What a lesion is asked to be like: as training lesions are, as asked for, and each attribute fitting the others."""

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from promptlesion.data.dataset import Dataset, read_case
from promptlesion.data.lesion_attributes import NAMES
from promptlesion.data.lesion_statistics import LesionStatistics, TypeStatistics
from promptlesion.masks.placement import PlacedLesion, place_lesion
from promptlesion.masks.sizes_and_shapes import LesionDrawing
from promptlesion.synthesis.asking import ask, asking
from promptlesion.synthesis.plan import parse_attributes
from promptlesion.synthesis.synthesizer import SynthesizerCard

HOST_HU = 120.0
"""Of the organ in the scans, whose noise is 20 HU."""


def statistics() -> LesionStatistics:
    """Bright lesions: small ones of about 400 HU, large ones of about 600, in hosts of 100 to 140 HU."""
    diameters = (4.0, 4.2, 4.4, 7.6, 7.8, 8.0) * 5
    means = (390.0, 400.0, 410.0, 590.0, 600.0, 610.0) * 5
    hosts = (100.0, 120.0, 140.0) * 10
    bright = TypeStatistics(
        diameters_mm=diameters,
        mean_hu=means,
        std_hu=(40.0, 50.0, 60.0) * 10,
        contrast_hu=tuple(mean - host for mean, host in zip(means, hosts, strict=True)),
        attributes={
            "p10_hu": tuple(mean - 60 for mean in means),
            "p50_hu": tuple(mean + 5 for mean in means),
            "p90_hu": tuple(mean + 60 for mean in means),
            "edge_hu_per_mm": (200.0, 210.0, 215.0, 220.0, 230.0, 240.0) * 5,
            "outer_hu": tuple(mean - 70 for mean in means),
            "low_frequency_hu": (8.0, 9.0, 10.0) * 10,
            "mid_frequency_hu": (5.0, 6.0, 7.0) * 10,
        },
        counts_per_case=(6,),
    )
    return LesionStatistics(types={"bright": bright})


@pytest.fixture(scope="module")
def placed(scans: Dataset, drawing: LesionDrawing) -> PlacedLesion:
    image, labels = read_case(scans, scans.cases[0])
    return place_lesion(labels, scans, 0, drawing=drawing, generator=np.random.default_rng(0), image=image)


def asked_of(
    scans: Dataset,
    card: SynthesizerCard,
    lesion: PlacedLesion,
    attributes: Mapping[str, object],
    *,
    seed: int = 0,
) -> Mapping[str, float]:
    dataset = asking(scans, {"bright": attributes} if attributes else {}, card)
    image, labels = read_case(scans, scans.cases[0])
    return ask(lesion, image, labels, dataset, card=card, generator=np.random.default_rng(seed)).asked


@pytest.fixture
def card(noise_painter, scans: Dataset) -> SynthesizerCard:  # type: ignore[no-untyped-def]
    painter: SynthesizerCard = noise_painter(scans.spec, statistics=statistics(), knows_attributes=True).card
    return painter


def test_unasked_it_is_like_a_training_lesion_of_its_size(
    scans: Dataset, card: SynthesizerCard, placed: PlacedLesion
) -> None:
    small, large = (replace(placed, diameter_mm=diameter) for diameter in (4.2, 7.8))
    for lesion, mean_hu in ((small, 400.0), (large, 600.0)):
        drawn = [asked_of(scans, card, lesion, {}, seed=seed) for seed in range(20)]
        assert np.mean([values["mean_hu"] for values in drawn]) == pytest.approx(mean_hu, abs=15)
        assert len({values["mean_hu"] for values in drawn}) == 20
        for values in drawn:
            assert values["p10_hu"] < values["p50_hu"] < values["p90_hu"]
            assert values["diameter_mm"] == lesion.diameter_mm
            assert values["mean_hu"] - values["contrast_hu"] == pytest.approx(HOST_HU, abs=12)
            assert set(values) <= set(NAMES)


@pytest.mark.parametrize(
    ("attributes", "name", "low", "high"),
    [
        ({"mean_hu": (450.0, 500.0)}, "mean_hu", 450.0, 500.0),
        ({"mean_hu": 480}, "mean_hu", 480.0, 480.0),
        ({"std_hu": 25}, "std_hu", 25.0, 25.0),
        ({"contrast_hu": -30}, "contrast_hu", -30.0, -30.0),
        ({"low_frequency_hu": 2.5, "mean_hu": 700}, "low_frequency_hu", 2.5, 2.5),
    ],
)
def test_what_is_asked_for_is_asked(
    scans: Dataset,
    card: SynthesizerCard,
    placed: PlacedLesion,
    attributes: Mapping[str, object],
    name: str,
    low: float,
    high: float,
) -> None:
    for seed in range(5):
        values = asked_of(scans, card, placed, attributes, seed=seed)
        assert low - 1e-6 <= values[name] <= high + 1e-6
        assert values["p10_hu"] < values["mean_hu"] < values["p90_hu"]
        assert values["mean_hu"] - values["contrast_hu"] == pytest.approx(HOST_HU, abs=12)


def test_beyond_what_training_lesions_have_spread_and_edge_go_along(
    scans: Dataset, card: SynthesizerCard, placed: PlacedLesion
) -> None:
    lesion = replace(placed, diameter_mm=7.8)
    plain, twice = (
        asked_of(scans, card, lesion, {"contrast_hu": 480}),
        asked_of(scans, card, lesion, {"contrast_hu": 960}),
    )
    assert twice["std_hu"] > 1.3 * plain["std_hu"]
    assert twice["edge_hu_per_mm"] > 1.3 * plain["edge_hu_per_mm"]
    darker = asked_of(scans, card, lesion, {"contrast_hu": -100})
    assert darker["edge_hu_per_mm"] < 0


def test_of_few_training_lesions_none_is_drawn_all_the_time(
    scans: Dataset, card: SynthesizerCard, placed: PlacedLesion
) -> None:
    few = TypeStatistics(
        diameters_mm=(4.0, 6.0, 7.0, 8.0, 9.0, 10.0),
        mean_hu=(100.0, 200.0, 300.0, 400.0, 500.0, 600.0),
        std_hu=(1.0,) * 6,
        contrast_hu=(0.0, 100.0, 200.0, 300.0, 400.0, 500.0),
        counts_per_case=(6,),
    )
    told = replace(card, statistics=LesionStatistics(types={"bright": few}))
    lesion = replace(placed, diameter_mm=4.0)
    drawn = [asked_of(scans, told, lesion, {}, seed=seed)["mean_hu"] for seed in range(60)]
    nearest = np.mean(np.abs(np.array(drawn) - 100) < 80)
    assert 0.2 < nearest < 0.6


def test_no_lesion_is_like_one_whose_label_holds_bone(
    scans: Dataset, card: SynthesizerCard, placed: PlacedLesion
) -> None:
    means, stds = (20.0, 25.0, 30.0, 35.0, 40.0, 28.0, 32.0, 107.0), (15.0, 12.0, 18.0, 20.0, 14.0, 16.0, 13.0, 215.0)
    sarcomas = TypeStatistics(
        diameters_mm=(placed.diameter_mm,) * 8,
        mean_hu=means,
        std_hu=stds,
        contrast_hu=(0.0,) * 8,
        counts_per_case=(8,),
    )
    told = replace(card, statistics=LesionStatistics(types={"bright": sarcomas}))
    drawn = [asked_of(scans, told, placed, {}, seed=seed) for seed in range(40)]
    assert max(values["mean_hu"] for values in drawn) < 70
    assert max(values["std_hu"] for values in drawn) < 60


def test_what_is_drawn_is_plausible(scans: Dataset, card: SynthesizerCard, placed: PlacedLesion) -> None:
    narrow = scans.spec.lesions[0].model_copy(update={"hu": (395.0, 400.0)})
    dataset = replace(scans, spec=scans.spec.model_copy(update={"lesions": (narrow, scans.spec.lesions[1])}))
    for seed in range(10):
        values = asked_of(dataset, card, replace(placed, diameter_mm=4.0), {}, seed=seed)
        assert 395 <= values["mean_hu"] <= 400
        assert values["p10_hu"] < 395 < 400 < values["p90_hu"]


def test_a_type_without_training_lesions_is_left_open(
    scans: Dataset, card: SynthesizerCard, placed: PlacedLesion
) -> None:
    unknown = replace(card, statistics=LesionStatistics(types={}))
    assert asked_of(scans, unknown, placed, {}) == {"diameter_mm": placed.diameter_mm}
    values = asked_of(scans, unknown, placed, {"mean_hu": 300})
    assert (values["mean_hu"], values["contrast_hu"]) == (300.0, pytest.approx(180.0, abs=12))


def test_a_method_that_knows_none_is_asked_for_none(
    scans: Dataset, card: SynthesizerCard, placed: PlacedLesion, caplog: pytest.LogCaptureFixture
) -> None:
    deaf = replace(card, knows_attributes=False)
    assert asked_of(scans, deaf, placed, {}) == {}
    with pytest.raises(ValueError, match=r"diffusion.attributes = true to ask for mean_hu; found one of noise"):
        asking(scans, {"bright": {"mean_hu": 300}}, deaf)
    assert asking(scans, {"bright": {"diameter_mm": 5}}, deaf).spec.lesions[0].diameter_mm == pytest.approx(
        (4.95, 5.05)
    )
    told = replace(scans, spec=scans.spec.asking({"bright": {"mean_hu": 300}}))
    with caplog.at_level(logging.WARNING):
        asking(told, {}, deaf)
    assert "the noise model knows none" in caplog.text


def test_attributes_are_read_from_text() -> None:
    texts = ["calcified_plaque.mean_hu=400..900", "calcified_plaque.diameter_mm=3", "liver.tumor.contrast_hu=-60..-30"]
    assert parse_attributes(texts) == {
        "calcified_plaque": {"mean_hu": (400.0, 900.0), "diameter_mm": (3.0, 3.0)},
        "liver.tumor": {"contrast_hu": (-60.0, -30.0)},
    }


@pytest.mark.parametrize(
    "text", ["mean_hu=3", "plaque.mean_hu", "plaque.mean_hu=low", "plaque.mean_hu=1..", ".mean_hu=3"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected TYPE\.ATTRIBUTE=VALUE"):
        parse_attributes([text])
    with pytest.raises(ValueError, match="every one once"):
        parse_attributes(["a.mean_hu=1", "a.mean_hu=2"])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"none": {"mean_hu": 1}}, "expected a lesion type of bright, dark; found 'none'"),
        ({"bright": {"brightness": 1}}, "expected some of mean_hu, std_hu"),
        ({"bright": {"mean_hu": 1, "contrast_hu": 1}}, "expected mean_hu or contrast_hu"),
        ({"bright": {"mean_hu": (3, 1)}}, "low <= high"),
        ({"bright": {"mean_hu": 3500}}, r"mean_hu within hu, \[-1000.0, 3000.0\]; found \[3500.0, 3500.0\]"),
        ({"bright": {"mean_hu": float("nan")}}, "finite"),
    ],
)
def test_what_cannot_be_asked_is_refused(scans: Dataset, asked: Mapping[str, Mapping[str, object]], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        scans.spec.asking(asked)


def test_what_the_user_asks_goes_before_lesions_toml(scans: Dataset) -> None:
    told = scans.spec.asking({"bright": {"mean_hu": 300, "std_hu": 20}})
    assert told.asking({"bright": {"contrast_hu": 50}}).lesions[0].attributes == {
        "std_hu": (20, 20),
        "contrast_hu": (50, 50),
    }
