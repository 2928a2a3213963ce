"""Tables of what the methods paint, each once."""

from collections.abc import Sequence
from statistics import median

from promptlesion.evaluation.appearance import SHOWN
from promptlesion.evaluation.results import Estimate, FidelityRow, PromptSwitch
from promptlesion.evaluation.wording import duration_text, estimate_text, measure_text, readable, signed_text
from promptlesion.experiment.results import CellTime, ExperimentResults
from promptlesion.experiment.table import Table
from promptlesion.methods import method_named

_MOST_NAMED = 5
_PAPER_TIMES = {"promptlesion-transformer": 3.1, "difftumor": 4.0, "med-ddpm": 3.3}
_PAPER_FID = {
    "difftumor": (4.3, 5.5, 5.2, 5.3, 4.8, 5.0),
    "med-ddpm": (4.5, 6.8, 5.9, 5.0, 6.7, 5.8),
    "promptlesion-onehot": (5.5, 5.9, 4.8, 5.2, 6.2, 5.5),
    "promptlesion-transformer": (5.3, 5.8, 5.0, 5.3, 5.2, 5.3),
}
_PAPER_TYPES = ("calcified_plaque", "non_calcified_plaque", "liver_tumor", "kidney_tumor", "pancreas_tumor")


def time_table(results: ExperimentResults) -> Table:
    """The paper's Table 2: training time, and volumes painted a minute."""
    stage1 = {time.num_subjects: time.seconds for time in results.times if time.kind == "autoencoder"}
    measured = {(each.num_subjects, each.method): each for each in results.fidelity}

    def texts(time: CellTime) -> tuple[str, ...]:
        found = measured.get((time.num_subjects, time.method))
        shared = stage1.get(time.num_subjects) if method_named(time.method).needs_autoencoder else None
        return (
            time.method,
            str(time.num_subjects),
            "–" if shared is None else duration_text(shared),
            duration_text(time.seconds),
            "–" if found is None or found.patch_voxels is None else f"{found.patch_voxels}³",
            "–" if found is None else found.sampling,
            "–" if found is None else f"{found.volumes_per_minute:.0f}",
            f"{_PAPER_TIMES[time.method]:.1f}" if time.method in _PAPER_TIMES else "–",
        )

    trained = sorted((time for time in results.times if time.kind == "method"), key=lambda time: time.num_subjects)
    return Table(
        "table2-time",
        f"Table 2 of the paper. Here: {results.machine}. The paper's: one V100, patches of 96³, 400 steps; 168 h for "
        "the autoencoder and 96 h for each diffusion model.",
        ("method", "real subjects", "autoencoder", "training", "patch", "sampling", "volumes a minute", "paper's"),
        tuple(map(texts, trained)),
    )


def work_table(results: ExperimentResults) -> Table:
    """What every piece of work took."""
    total = sum((time.seconds for time in results.times), start=0.0)
    return Table(
        "times",
        "Wall-clock time of every piece of work that is done, over all the times it was taken up.",
        ("piece of work", "time"),
        (*((time.name, duration_text(time.seconds)) for time in results.times), ("total", duration_text(total))),
    )


def distance_table(results: ExperimentResults, key: str) -> Table:
    """The paper's Table 3: FID (or KID) by type and on average, for each extractor; the paper's FID beside it."""
    types = results.dataset.lesion_types
    groups: list[tuple[str, str, Sequence[FidelityRow]]] = [
        (each.method, str(each.num_subjects), each.measured.fidelity) for each in results.fidelity
    ]
    groups.append(("real training lesions", str(results.main_num_subjects), results.real_against_real))
    body = []
    for method, number, distances in groups:
        for network in dict.fromkeys(row.network for row in distances):
            of_network = {row.lesion_type: row for row in distances if row.network == network}
            estimates: list[Estimate | None] = [
                getattr(of_network[name], key) if name in of_network else None for name in types
            ]
            known = [each.value for each in estimates if each is not None and each.value is not None]
            counts = ", ".join(
                f"{of_network[name].num_real}/{of_network[name].num_synthetic}" if name in of_network else "–"
                for name in types
            )
            texts = [estimate_text(each, 2) if each else "–" for each in estimates]
            average = f"{sum(known) / len(known):.2f}" if len(known) == len(types) else "–"
            body.append((method, number, network, *texts, average, counts))
    caption = (
        f"Table 3 of the paper: lesion-{key.upper()} of held-out real lesions against painted ones, with its interval; "
        "N: real/painted, in the order of the types. Lower is better. Figures of different N do not compare for FID; "
        "KID has no such bias. Last rows: held-out against training lesions, both real."
    )
    if key == "fid" and tuple(types) == _PAPER_TYPES:
        body += [
            (f"{method}, paper", "", "MedicalNet ResNet-50", *(f"{value:.1f}" for value in values), "")
            for method, values in _PAPER_FID.items()
        ]
        caption += " The paper's: other data, other networks."
    columns = ("method", "real subjects", "features", *(readable(name) for name in types), "average", "N")
    return Table(f"table3-{key}", caption, columns, tuple(body))


def distribution_table(results: ExperimentResults) -> Table:
    """Attenuation, texture and size of painted against held-out real lesions; of plaque also its burden."""
    body = tuple(
        (
            each.method,
            str(each.num_subjects),
            readable(row.lesion_type),
            readable(row.measure),
            f"{row.num_real}/{row.num_synthetic}",
            f"{row.real_mean:.2f} ± {row.real_std:.2f}",
            f"{row.synthetic_mean:.2f} ± {row.synthetic_std:.2f}",
            f"{row.wasserstein:.2f}",
            f"{row.ks_p_value:.3f}",
        )
        for each in results.fidelity
        for row in each.measured.distributions
    )
    return Table(
        "distributions",
        "Held-out real lesions against painted ones: mean ± standard deviation between lesions, Wasserstein distance "
        "in the measure's unit, p of the Kolmogorov-Smirnov test (which takes lesions for independent).",
        ("method", "real subjects", "lesion type", "measure", "N", "real", "painted", "Wasserstein", "p"),
        body,
    )


def appearance_table(results: ExperimentResults) -> Table:
    """How painted lesions look beside held-out real ones, the measures that matter most."""
    body = tuple(
        (
            each.method,
            str(each.num_subjects),
            readable(found.lesion_type),
            measure_text(row.measure, row.unit),
            f"{row.num_real}/{row.num_synthetic}",
            estimate_text(row.real, 1),
            estimate_text(row.synthetic, 1),
            signed_text(row.difference, 1),
            "–" if found.energy_distance is None else f"{found.energy_distance:.3f}",
            estimate_text(found.energy_distance_of_halves),
        )
        for each in results.fidelity
        for found in each.measured.appearance
        for row in found.measures
        if row.measure in SHOWN
    )
    return Table(
        "appearance",
        "How lesions look, held-out real ones against painted ones: means with their intervals (subjects, or painted "
        "cases, drawn again) of brightness, spread inside, outer 0.6 mm, core, slope across the edge, mottling above "
        "1.5 mm and noise below 0.75 mm. Energy distance: of these and six more measures together; beside it that of "
        "halves of the real subjects. results.json has every measure.",
        (
            *("method", "real subjects", "lesion type", "measure", "N", "real", "painted", "difference"),
            *("energy distance", "of real halves"),
        ),
        body,
    )


def asked_table(results: ExperimentResults) -> Table:
    """Attributes of painted lesions against what was asked for."""
    body = tuple(
        (
            each.method,
            str(each.num_subjects),
            readable(row.lesion_type),
            readable(row.attribute),
            str(row.num_lesions),
            *(estimate_text(value, 1) for value in (row.asked, row.painted, row.absolute_difference)),
            *(estimate_text(value, 2) for value in (row.share_close, row.slope, row.correlation)),
        )
        for each in results.fidelity
        for row in each.measured.asked
    )
    return Table(
        "asked",
        "Attributes of accepted lesions as painted against as asked for, with intervals over painted cases; close: "
        "share within 5 %, or 8 HU of the mean; slope: of painted on asked, 1 where it follows.",
        (
            *("method", "real subjects", "lesion type", "attribute", "N", "asked", "painted", "apart", "close"),
            *("slope", "correlation"),
        ),
        body,
    )


def memorisation_table(results: ExperimentResults) -> Table:
    """How many painted lesions are copies of training lesions, and the nearest ones by name."""
    body = []
    for each in results.fidelity:
        found = each.measured.memorisation
        if found is None:
            continue
        nearest = sorted(found.synthetic, key=lambda row: row.distance - row.threshold)[:1]
        named = found.copies[:_MOST_NAMED] or nearest
        body.append(
            (
                each.method,
                str(each.num_subjects),
                str(len(found.synthetic)),
                str(len(found.copies)),
                _median([row.distance for row in found.synthetic]),
                _median([row.distance for row in found.real]),
                "; ".join(f"{row.case} is like {row.nearest_case} ({row.distance:.2f})" for row in named),
            )
        )
    return Table(
        "memorisation",
        "Texture distance of every painted lesion to its nearest training lesion of the type (0: a copy), against that "
        "of real lesions to those of other subjects. Copies: nearer than all but one in a thousand strangers are. "
        "Named: the copies, else the lesion that comes nearest to being one.",
        ("method", "real subjects", "painted", "copies", "median distance", "between real ones", "nearest"),
        tuple(body),
    )


def intensity_table(results: ExperimentResults) -> Table:
    """Mean HU inside lesions against real ones, and what the autoencoder alone does to it."""
    return Table(
        "intensity",
        "Mean HU inside each lesion, averaged over lesions, on the blended scans; N: held-out real/compared. The rule: "
        "within 25 % of the real mean or 30 HU, whichever is more. Autoencoded lesions are real ones that went through "
        "stage 1 only: that is the autoencoder's own part of the bias.",
        ("lesion type", "lesions", "real subjects", "N", "real HU", "its HU", "bias", "relative", "allowed", "rule"),
        tuple(
            (
                readable(row.lesion_type),
                each.method if row.compared == "synthetic" else f"{row.compared}, {each.method}",
                str(each.num_subjects),
                f"{row.num_real}/{row.num_compared}",
                f"{row.real_mean_hu:.0f}",
                f"{row.compared_mean_hu:.0f}",
                f"{row.bias_hu:+.0f}",
                "–" if row.relative_bias is None else f"{row.relative_bias:+.0%}",
                f"±{row.tolerance_hu:.0f}",
                "holds" if row.is_within_tolerance else "broken",
            )
            for each in results.fidelity
            for row in each.intensity
        ),
    )


def prompt_table(results: ExperimentResults) -> Table:
    """What the prompt alone does to the mean HU."""
    switched = [(each, each.prompt_switch) for each in results.fidelity if each.prompt_switch is not None]
    return Table(
        "prompt-switch",
        "Masks, surroundings and noise stay the same, only the prompt is switched; the mean HU inside the same lesions "
        "follows, mean ± standard deviation. AUC: how well two prompts separate by it (0.5 not at all, 1 fully).",
        ("method", "real subjects", "encoder", "masks", "prompt", "painted HU", "real HU", "rule", "AUC against"),
        tuple(
            (
                each.method,
                str(each.num_subjects),
                switch.encoder,
                str(switch.num_lesions),
                readable(row.prompt),
                f"{row.mean_hu:.0f} ± {row.std_hu:.0f}",
                "–" if row.real_mean_hu is None else f"{row.real_mean_hu:.0f}",
                {True: "holds", False: "broken", None: "–"}[row.is_within_tolerance],
                _areas(switch, row.prompt),
            )
            for each, switch in switched
            for row in switch.rows
        ),
    )


def _areas(switch: PromptSwitch, prompt: str) -> str:
    pairs = [({pair.first, pair.second} - {prompt}, max(pair.auc, 1 - pair.auc)) for pair in switch.pairs]
    return "; ".join(f"{readable(*other)} {area:.3f}" for other, area in pairs if len(other) == 1)


def _median(values: Sequence[float]) -> str:
    return f"{median(values):.2f}" if values else "–"
