"""The whole check: every case on its own, the cases beside one another, the lesions, and what training will cost."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryFile

from promptlesion.check.case import examine_case
from promptlesion.check.case_comparison import comparison_findings
from promptlesion.check.cost_findings import estimate_findings, extent_of
from promptlesion.check.draft import draft_spacing_mm, draft_spec, guess_lesion_labels
from promptlesion.check.facts import CaseFacts, CaseFiles
from promptlesion.check.finding import SEVERITIES, Finding, Severity, worst, worst_first
from promptlesion.check.folder import Folder, read_folder, subject_findings
from promptlesion.check.lesions import NetworkGrid, TypeFacts, lesion_findings, type_facts
from promptlesion.config import Config
from promptlesion.cost.estimate import StageEstimate
from promptlesion.cost.machine import Machine, this_machine
from promptlesion.cost.stages import NUM_STAGES, estimate_stages
from promptlesion.data.dataset import image_path, label_path, open_dataset
from promptlesion.data.spec import DatasetError, DatasetSpec, read_spec
from promptlesion.data.splits import Split, dataset_split
from promptlesion.evaluation.palette import label_colors
from promptlesion.training.atomic import write_text
from promptlesion.training.pool import run_in_processes

REPORT_FOLDER = "check"
_WINDOW_HU = (-160.0, 240.0)
"""Of the pictures where no lesions.toml says otherwise."""


@dataclass(frozen=True)
class DatasetCheck:
    """All that was found and measured."""

    root: Path
    out: Path
    """Where the report goes."""
    cases: tuple[CaseFacts, ...]
    findings: tuple[Finding, ...]
    """Worst first."""
    labels: Mapping[str, int]
    spec: DatasetSpec | None
    spec_path: Path
    is_spec_drafted: bool
    """Whether this check wrote `spec_path`."""
    types: tuple[TypeFacts, ...]
    grid: NetworkGrid
    stages: tuple[StageEstimate, ...]
    machine: Machine

    @property
    def counts(self) -> dict[Severity, int]:
        """Findings of each severity."""
        return {severity: sum(one.severity == severity for one in self.findings) for severity in SEVERITIES}

    @property
    def would_spoil_a_run(self) -> bool:
        """Whether there is an error among the findings."""
        return worst(self.findings) == "error"

    @property
    def report_path(self) -> Path:
        """Where `write_check` writes what is to be looked at."""
        return self.out / "check.html"


def check_dataset(
    root: Path,
    *,
    out: Path | None = None,
    lesions: Path | None = None,
    config: Config,
    device: str = "auto",
    num_workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> DatasetCheck:
    """Examine a dataset folder, whether or not `open_dataset` would take it.

    Where there is no `lesions.toml`, one to start from is written.

    Args:
        root: the dataset folder.
        out: folder of the report, by default `check` in the dataset folder. Where it lies elsewhere, a drafted
            `lesions.toml` goes there too, and the dataset folder is left as it is.
        lesions: another `lesions.toml` than the folder's own.
        config: of the networks, whose sizes decide what they can show and what they cost.
        device: that training will use: `auto` or a device's name.
        num_workers: processes that read cases.
        on_progress: told (done, all there is to do) after each case, and after each stage that was estimated.

    Raises:
        DatasetError: there is no dataset folder, or nothing may be written into `out`.
        DeviceError: this machine does not have the device.
        RuntimeError: a process that read a case was killed.
    """
    folder = read_folder(root)
    folder_out = _made(out or root / REPORT_FOLDER)
    machine = this_machine(device, folder_out)
    findings = list(folder.findings)
    labels = dict(folder.labels) if folder.labels is not None else {}
    spec_path = _spec_path(root, folder_out, lesions)
    spec = _spec(spec_path, findings) if spec_path.exists() or lesions is not None else None
    for lesion in spec.lesions if spec else ():  # those that healthy scans are yet to get
        if lesion.label not in labels.values():
            labels.setdefault(lesion.name, lesion.label)
    lesion_labels = [one.label for one in spec.lesions] if spec else list(guess_lesion_labels(labels).values())
    colors = label_colors(labels, lesion_labels)
    files = [
        CaseFiles(
            name=name,
            image_path=image_path(root, name),
            label_path=label_path(root, name),
            labels=labels if folder.labels is not None else None,
            lesion_labels=tuple(lesion_labels),
            colors=dict(sorted(colors.items(), key=lambda entry: entry[0] in lesion_labels)),
            window_hu=spec.window_hu if spec else _WINDOW_HU,
        )
        for name in folder.names
    ]
    report = _reporter(on_progress, len(files) + NUM_STAGES)
    cases = _examine_all(files, num_workers, report)
    findings += [finding for case in cases for finding in case.findings]
    is_drafted = False
    if (
        spec is None
        and not spec_path.exists()
        and lesions is None
        and folder.labels is not None
        and any(c.labels for c in cases)
    ):
        spec = _draft(spec_path, cases, labels, config, root, findings)
        is_drafted = True
    spacing_mm = spec.spacing_mm if spec else draft_spacing_mm(cases, downsampling=config.autoencoder.downsampling)
    grid = NetworkGrid(spacing_mm, config.autoencoder.downsampling, config.diffusion.patch_voxels)
    findings += comparison_findings(cases, labels, grid_spacing_mm=spec.spacing_mm if spec else None)
    findings += subject_findings(folder, spec)
    if spec is not None:
        findings += lesion_findings(cases, spec, labels, grid)
    split, refusal = _split(folder, spec_path, cases, config)
    if spec is not None and refusal is not None and worst(findings) != "error":
        findings.append(Finding("error", "refused", "", refusal, "training would end with this message"))
    stages: list[StageEstimate] = []
    extent = extent_of(
        cases,
        split,
        spacing_mm=grid.spacing_mm,
        num_types=len(spec.lesions) if spec else 1,
        num_labels=len(labels),
        window_hu=spec.window_hu if spec else _WINDOW_HU,
    )
    try:
        stages += estimate_stages(config, extent, machine, on_progress=report) if extent.prepared_voxels else []
    except ValueError as error:
        findings.append(Finding("error", "configuration", "", str(error), "correct the configuration"))
    findings += estimate_findings(stages, machine, config)
    return DatasetCheck(
        root=root,
        out=folder_out,
        cases=tuple(cases),
        findings=tuple(worst_first(findings)),
        labels=labels,
        spec=spec,
        spec_path=spec_path,
        is_spec_drafted=is_drafted,
        types=tuple(type_facts(cases, spec, labels, grid)) if spec else (),
        grid=grid,
        stages=tuple(stages),
        machine=machine,
    )


def _reporter(on_progress: Callable[[int, int], None] | None, total: int) -> Callable[[], None]:
    """Return what counts one thing more as done."""
    done = count(1)

    def report() -> None:
        number = next(done)
        if on_progress is not None:
            on_progress(number, total)

    return report


def _spec_path(root: Path, out: Path, lesions: Path | None) -> Path:
    """Return the lesions.toml to read or to write; beside the report where that was put elsewhere."""
    own = root / "lesions.toml"
    return lesions or (own if own.exists() or out.resolve().parent == root.resolve() else out / "lesions.toml")


def _made(folder: Path) -> Path:
    """Make the report's folder, before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DatasetError(
            f"{folder}: expected a folder to write the report to, found one that cannot be written to "
            f"({error.strerror or error}); choose another with --out"
        ) from error
    return folder


def _spec(path: Path, findings: list[Finding]) -> DatasetSpec | None:
    try:
        return read_spec(path)
    except DatasetError as error:
        remedy = "correct it; docs/data.md says what it holds. Moved away, `check` writes one to start from"
        findings.append(Finding("error", "lesions-toml", "", str(error), remedy))
        return None


def _draft(
    path: Path,
    cases: Sequence[CaseFacts],
    labels: Mapping[str, int],
    config: Config,
    root: Path,
    findings: list[Finding],
) -> DatasetSpec | None:
    draft = draft_spec(cases, labels, downsampling=config.autoencoder.downsampling, dataset_name=root.resolve().name)
    write_text(path, draft)
    if not guess_lesion_labels(labels):
        message = (
            f"{path}: expected a label that is a lesion by its name, found none in {', '.join(labels)}; the file holds "
            "templates"
        )
        remedy = "take the # away before what you want to paint"
        findings.append(Finding("error", "no-lesion-types", "", message, remedy))
        return None
    message = f"{path}: expected a file that names the lesion types, found none: one to start from was written"
    findings.append(
        Finding("note", "lesions-toml-written", "", message, "read it, and correct what is not as you want it")
    )
    return read_spec(path)


def _split(folder: Folder, spec_path: Path, cases: Sequence[CaseFacts], config: Config) -> tuple[Split, str | None]:
    """Return the split that the stages would have, and what they would refuse the folder for.

    Where it cannot be opened yet, the split is as if every case were usable.
    """
    try:
        return dataset_split(open_dataset(folder.root, spec_path), **config.data.split_options()), None
    except DatasetError as error:
        shares = (config.data.validation_fraction, config.data.test_fraction)
        num_validation, num_test = (round(share * len(cases)) for share in shares)
        names = tuple(case.name for case in cases)
        return Split(names[num_validation + num_test :], names[:num_validation], ()), str(error)


def _examine_all(files: Sequence[CaseFiles], num_workers: int, report: Callable[[], None]) -> list[CaseFacts]:
    found: dict[str, CaseFacts] = {}
    name_of = attrgetter("name")
    with closing(run_in_processes(examine_case, files, num_workers=num_workers, name_of=name_of)) as examined:
        for facts in examined:
            found[facts.name] = facts
            report()
    return [found[one.name] for one in files]
