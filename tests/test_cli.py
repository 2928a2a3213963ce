"""The command line: what it says, how it ends, and that it answers at once."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.table import Table

from promptlesion import __version__
from promptlesion.cli import main
from promptlesion.cli.console import say, show
from promptlesion.data.dataset import Dataset, open_dataset, write_spec
from promptlesion.data.splits import Split, write_splits
from promptlesion.data.volume import read_description
from promptlesion.training.progress import progress_bar

VERBS = [
    "demo",
    "prepare",
    "check",
    "train",
    "train autoencoder",
    "train diffusion",
    "train segmentation",
    "synthesize",
    "segment",
    "evaluate",
    "evaluate segmentation",
    "evaluate fidelity",
    "evaluate reconstruction",
    "config",
    "config show",
    "config check",
]
HEAVY = ("torch", "monai", "numpy", "scipy", "nibabel", "matplotlib", "skimage")

Answer = tuple[int, str, str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Call the command line as a shell would; exit code, standard output, standard error."""

    def call(*arguments: object) -> Answer:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["promptlesion", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return call


@pytest.fixture
def split_data(tiny_data: Dataset, tmp_path: Path) -> Dataset:
    """The tiny dataset, of which the subjects train that the tiny models were trained on."""
    shutil.copytree(tiny_data.root, tmp_path / "data")
    names = tuple(case.name for case in tiny_data.cases)
    write_splits(tmp_path / "data", Split(train=names[:3], validation=names[3:], test=()))
    return open_dataset(tmp_path / "data")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["config", "show"], ["config", "check"], ["train", "diffusion", "--help"]]
)
def test_it_answers_without_loading_what_is_slow(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = {["promptlesion", *arguments]!r}
from promptlesion.cli import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
"""
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_it_is_installed_and_a_bad_configuration_ends_with_2_and_one_message() -> None:
    command = [Path(sys.executable).with_name("promptlesion"), "config", "check", "--set", "diffusion.num_steps=0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "configuration: diffusion.num_steps: Input should be greater than or equal to 1; found 0"
    ]


def test_help_names_every_verb(run: Callable[..., Answer]) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert all(verb in out for verb in VERBS if " " not in verb)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(run: Callable[..., Answer], verb: str) -> None:
    code, out, err = run(*verb.split(), "--help")
    assert (code, err) == (0, "")
    assert f" {verb} [OPTIONS]" in " ".join(out.split())
    assert "Example" in out or verb in ("train", "evaluate", "config")


def test_the_terminal_takes_no_text_for_markup_or_pictures(
    run: Callable[..., Answer], capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder may be called `[/b]` or `:label:`, which is no price tag; the same in a help text."""
    assert "TYPE=PATH:LABEL, NIfTI" in run("synthesize", "--help")[1]
    say("scans [/b] [bold] :label:")
    show("scans [/b] [bold] :label:", Table("[/b] :label:"))
    said, line = capsys.readouterr().out, "scans [/b] [bold] :label:\n"
    assert said.startswith(2 * line)
    assert "[/b] :label:" in said.removeprefix(2 * line)
    with progress_bar("reading [/b] :label:", 2) as bar:
        bar.update(2)
    assert "reading [/b] :label:: 2 of 2" in capsys.readouterr().err


def test_version(run: Callable[..., Answer]) -> None:
    assert run("--version") == (0, f"{__version__}\n", "")


def test_config_show_prints_toml_that_config_check_accepts(run: Callable[..., Answer], tmp_path: Path) -> None:
    code, out, err = run("config", "show", "--preset", "demo", "--set", "diffusion.num_steps=12")
    assert (code, err) == (0, "")
    assert tomllib.loads(out)["diffusion"]["num_steps"] == 12
    (tmp_path / "mine.toml").write_text(out)
    code, out, err = run("config", "check", "--config", tmp_path / "mine.toml")
    assert (code, out, err) == (0, "The configuration is valid.\n", "")


def test_config_show_prints_the_parameters_of_every_network(run: Callable[..., Answer]) -> None:
    code, out, err = run("config", "show", "--preset", "paper", "--parameters")
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "prompt encoder (mask-transformer): 136,192 parameters" in lines
    assert "transformer.blocks.2 TransformerBlock 43,008 31.58% 0" in lines
    assert any(line.startswith("injections.0.prompt UpsampledPromptBlock ") for line in lines)
    assert any(line.startswith("PromptGenBlocks: 0.52% of the diffusion U-Net's parameters") for line in lines)
    assert {"DiffTumor U-Net, one for every lesion type", "Med-DDPM U-Net", "segmentation"} <= {
        line.split(":")[0] for line in lines
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["config", "check", "--preset", "papers"], "--preset: expected one of default, demo, paper; found 'papers'"),
        (["config", "check", "--set", "a=1"], "--set a=1: expected SECTION.FIELD=VALUE"),
        (["config", "check", "--set", "diffusion.x=1"], "diffusion.x: Extra inputs are not permitted; found 1"),
        (["demo", "--data", "nowhere", "--out", "{tmp}"], "nowhere"),
        (["train", "autoencoder", "--data", "nowhere", "--out", "{tmp}"], "nowhere"),
        (["train", "diffusion", "--data", "x", "--out", "{tmp}"], "--autoencoder: expected a finished run of stage 1"),
        (
            ["train", "diffusion", "--method", "difftumor", "--data", "x", "--out", "{tmp}"],
            "--autoencoder: expected a finished run of stage 1 for the method difftumor; found none",
        ),
        (
            ["train", "diffusion", "--method", "med-ddpm", "--autoencoder", "ae", "--data", "x", "--out", "{tmp}"],
            "--autoencoder ae: expected none, as med-ddpm works on voxels",
        ),
        (
            ["train", "diffusion", "--type", "a", "--autoencoder", "ae", "--data", "x", "--out", "{tmp}"],
            "--type: expected with --method difftumor alone; found promptlesion",
        ),
        (["prepare", "nowhere", "--out", "{tmp}"], "nowhere: expected a folder of scans, found none"),
        (["prepare", "phantom", "--layout", "kits", "--out", "{tmp}"], "--layout: expected with a folder of scans"),
        (["prepare", "phantom", "--skip-refused", "--out", "{tmp}"], "--skip-refused: expected with a folder of scans"),
        (["prepare", "nowhere", "--no-noise", "--out", "{tmp}"], "--noise: expected with the source phantom alone"),
        (["prepare", "nowhere", "--seed", "0", "--out", "{tmp}"], "--seed: expected with the source phantom alone"),
        (["prepare", "nowhere", "--label", "a", "--out", "{tmp}"], "--label a: expected NAME=VALUE"),
        (["prepare", "src", "--out", "src/out"], "--out src/out: expected a folder outside src, found one inside it"),
        (["segment", "--model", "nowhere", "--data", "nowhere", "--out", "{tmp}"], "nowhere"),
        (["synthesize", "--data", "x", "--model", "nowhere", "--out", "{tmp}", "--count", "a=1"], "nowhere"),
        (["synthesize", "--data", "x", "--model", "y", "--out", "{tmp}", "--count", "a"], "expected TYPE=N"),
        (["evaluate", "fidelity", "--real", "nowhere", "--synthetic", "x"], "nowhere"),
        (["evaluate", "segmentation", "--data", "nowhere", "--predictions", "x"], "nowhere"),
    ],
)
def test_bad_input_ends_with_2_and_one_message(
    run: Callable[..., Answer], tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, out, err = run(*(argument.format(tmp=tmp_path / "out") for argument in arguments))
    assert code == 2, err
    assert message in err
    assert len(err.splitlines()) == 1
    assert "Traceback" not in out + err


@pytest.mark.parametrize("arguments", [["nonsense"], ["train"], ["demo", "--seed", "-1"], ["prepare", "phantom"]])
def test_a_wrong_command_ends_with_2(run: Callable[..., Answer], arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert "Usage" in out + err


@pytest.mark.parametrize(("error", "text"), [(OSError("disk full"), "disk full"), (KeyboardInterrupt(), "Interrupted")])
def test_work_that_could_not_be_finished_ends_with_1(
    run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, error: BaseException, text: str
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr("promptlesion.config.resolve_config", fail)
    code, _, err = run("config", "check")
    assert code == 1
    assert text in err
    assert len(err.splitlines()) == 1


def test_a_phantom_is_prepared_and_segmentations_of_it_are_measured(run: Callable[..., Answer], tmp_path: Path) -> None:
    data = tmp_path / "data"
    prepare = ("prepare", "phantom", "--kind", "abdomen", "--cases", 1, "--seed", 3, "--out", data)
    code, out, _ = run(*prepare)
    assert code == 0
    assert f"1 abdomen cases in {data}" in out
    dataset = open_dataset(data)
    assert len(dataset.cases) == 1
    before = dataset.cases[0].image_path.stat().st_mtime_ns
    assert run(*prepare)[0] == 0
    assert dataset.cases[0].image_path.stat().st_mtime_ns == before
    measure = ("evaluate", "segmentation", "--data", data, "--out", tmp_path / "scores.json", "--predictions")
    code, _, err = run(*measure, tmp_path)
    assert code == 2
    assert "expected label maps of cases of" in err
    code, out, _ = run(*measure, data / "labelsTr")
    assert code == 0
    assert "liver_tumor" in out
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["surface_tolerance_mm"] == 2.0
    assert {score["dice"] for score in scores["scores"]} <= {1.0, None}
    compared = [f"one={data / 'labelsTr'}", "--predictions", f"other={data / 'labelsTr'}"]
    code, out, _ = run(*measure, *compared, "--reference", "other")
    assert code == 0
    assert "Differences from the reference, paired by subject" in out
    rows = json.loads((tmp_path / "scores.json").read_text())["rows"]
    assert {row["p_value"] for row in rows if row["method"] == "one"} <= {1.0, None}
    code, _, err = run(*measure, *compared, "--reference", "third")
    assert code == 2
    assert "--reference third: expected a name of --predictions, one, other" in err


def test_cases_without_a_label_map_are_named_and_the_exit_code_says_so(
    run: Callable[..., Answer], split_data: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [case.name for case in split_data.cases]
    write_splits(split_data.root, Split(train=tuple(names[:2]), validation=(names[2],), test=(names[3],)))
    (tmp_path / "labels").mkdir()
    for case in (split_data.cases[0], split_data.cases[3]):
        shutil.copy(case.label_path, tmp_path / "labels" / f"{case.name}.nii.gz")
    scores = tmp_path / "scores.json"
    measure = [
        "evaluate",
        "segmentation",
        "--data",
        split_data.root,
        "--out",
        scores,
        "--predictions",
        tmp_path / "labels",
    ]
    for more, code in (([], 1), (["--allow-missing"], 0)):
        caplog.clear()
        ended, out, _ = run(*measure, *more)
        assert ended == code
        assert "bright" in out
        assert "2 of the 4 cases have no label map and are not in these figures: tiny_1, tiny_2." in caplog.text
        assert json.loads(scores.read_text())["cases_without_label_map"] == ["tiny_1", "tiny_2"]
    caplog.clear()
    assert run(*measure, "--part", "test")[0] == 0
    assert {score["case"] for score in json.loads(scores.read_text())["scores"]} == {"tiny_3"}
    assert "no label map" not in caplog.text


def test_a_network_is_chosen_and_its_predictions_are_mirrored(
    run: Callable[..., Answer], tiny_data: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mine.toml").write_text(
        "[segmentation]\npatch_voxels = 16\nchannels = [4, 4, 4]\nnum_epochs = 1\nsteps_per_epoch = 1\nbatch_size = 1\n"
    )
    train = ("train", "segmentation", "--data", tiny_data.root, "--config", tmp_path / "mine.toml")
    code, _, err = run(*train, "--network", "dynunet", "--out", tmp_path / "run", "--device", "cpu")
    assert code == 0, err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["network"] == "dynunet"
    code, _, err = run(*train, "--network", "vnet", "--out", tmp_path / "other")
    assert code == 2
    segment = ("segment", "--model", tmp_path / "run", "--data", tiny_data.root, "--out", tmp_path / "labels")
    code, said, err = run(*segment, "--mirror", "--device", "cpu")
    assert code == 0, err
    assert f"4 label maps in {tmp_path / 'labels'}" in said
    assert "trained or selected on the subjects of 3 of the 4 cases" in caplog.text
    caplog.clear()
    code, said, err = run(*segment[:-1], tmp_path / "held-out", "--part", "test", "--device", "cpu")
    assert code == 0, err
    assert f"1 label maps in {tmp_path / 'held-out'}" in said
    assert "trained or selected" not in caplog.text
    trained = json.loads((tmp_path / "run" / "checkpoint" / "card.json").read_text())
    (held_out,) = (path.name.removesuffix(".nii.gz") for path in (tmp_path / "held-out").glob("*.nii.gz"))
    assert held_out not in (*trained["training_cases"], *trained["validation_cases"])
    assert json.loads((tmp_path / "labels" / "segmentation.json").read_text())["is_mirrored"]


def test_who_learned_from_a_subject_that_is_held_out_now_is_refused_by_every_verb(
    run: Callable[..., Answer],
    tiny_autoencoder_run: Path,
    tiny_diffusion_run: Path,
    split_data: Dataset,
    tmp_path: Path,
) -> None:
    out, mine, data = tmp_path / "synthetic", tmp_path / "mine.toml", ["--data", split_data.root]
    mine.write_text(
        '[synthesis]\nnum_steps = 2\nsampler = "ddim"\naccept_all = true\n[segmentation]\npatch_voxels = 16\n'
        "channels = [4, 8]\nresidual_units = 0\nnum_epochs = 1\nsteps_per_epoch = 1\nbatch_size = 2\n"
    )
    synthesize = ["synthesize", *data, "--model", tiny_diffusion_run, "--config", mine, "--count", "bright=1"]
    train = ["train", "segmentation", *data, "--synthetic", out, "--config", mine, "--device", "cpu", "--out"]
    fidelity = ["evaluate", "fidelity", "--real", split_data.root, "--synthetic", out, "--out", tmp_path / "found.json"]
    latent = ["train", "diffusion", *data, "--autoencoder", tiny_autoencoder_run, "--out", tmp_path / "diffusion"]
    code, _, err = run(*synthesize, "--out", out)
    assert code == 0, err
    generator = json.loads((out / "generator.json").read_text())
    assert generator["training_subjects"] == ["tiny_0", "tiny_1", "tiny_2"]
    code, _, err = run(*train, tmp_path / "mixed")
    assert code == 0, err
    assert "tiny_1" not in run(*fidelity)[2]
    write_splits(split_data.root, Split(train=("tiny_0", "tiny_2"), validation=("tiny_3",), test=("tiny_1",)))
    for verb in ([*synthesize, "--out", tmp_path / "again"], [*train, tmp_path / "leaky"], fidelity, latent):
        code, _, err = run(*verb)
        assert code == 2, verb
        assert "expected a model trained on other subjects" in err
        assert "found 'tiny_1' (test part)" in err


def test_the_verbs_hang_together(
    run: Callable[..., Answer], tiny_diffusion_run: Path, split_data: Dataset, tmp_path: Path
) -> None:
    """Synthesize from a run, then hand what was written to the next verb."""
    out = tmp_path / "synthetic"
    synthesize = ["synthesize", "--data", split_data.root, "--model", tiny_diffusion_run, "--out", out, "--seed", 3]
    settings = ["--config", tmp_path / "mine.toml"]
    settings[1].write_text('[synthesis]\nnum_steps = 2\nsampler = "ddim"\nlesions_per_case = 1\naccept_all = true\n')
    code, _, err = run(*synthesize, *settings, "--count", "grey=1")
    assert code == 2
    assert "--count grey=1: expected one of the lesion types bright, dark" in err
    code, _, err = run(*synthesize, "--set", "synthesis.num_steps=400", "--count", "bright=1")
    assert code == 2
    assert "num_steps: expected 1 to 20" in err
    code, _, err = run(*synthesize, *settings, "--method", "med-ddpm", "--count", "bright=1")
    assert code == 2
    assert "expected a run of the method 'med-ddpm'; found one of 'promptlesion'" in err
    code, said, err = run(*synthesize, *settings, "--count", "bright=1", "--count", "dark=1")
    assert code == 0, err
    assert f"{out} is finished" in said
    assert len(open_dataset(out).cases) == 2
    assert json.loads((out / "dataset.json").read_text())["is_synthetic"]
    assert (out / "contact_sheet.png").stat().st_size > 1000
    assert str(out / "contact_sheet.png") in said
    assert read_description(open_dataset(out).cases[0].image_path).startswith("synthetic: promptlesion ")
    code, _, err = run(*synthesize[:-1], 4, *settings, "--count", "bright=1", "--count", "dark=1")
    assert code == 2
    assert "seed (3 instead of 4)" in err


def test_reconstructions_are_measured_and_drawn(
    run: Callable[..., Answer],
    tiny_autoencoder_run: Path,
    tiny_data: Dataset,
    tmp_path: Path,
) -> None:
    """Two models side by side, which may be one; test is what neither was trained on."""
    measure = ["evaluate", "reconstruction", "--data", tiny_data.root, "--model", tiny_autoencoder_run]
    files = ["--cache", tmp_path / "cache", "--out", tmp_path / "scores.json", "--figure", tmp_path / "shown.png"]
    code, out, err = run(*measure, *files, "--part", "all", "--model", tiny_autoencoder_run)
    assert code == 0, err
    assert "trilinear 4x" in out
    scores = json.loads((tmp_path / "scores.json").read_text())["reconstruction"]
    assert [len(row["cases"]) for row in scores] == [4, 4]
    assert scores[0] == scores[1]
    assert scores[0]["autoencoder"]["mae_hu"] > scores[0]["trilinear"]["mae_hu"] > 0  # after twenty steps
    assert 0 < scores[0]["codes_used"] <= 1
    assert (tmp_path / "shown.png").read_bytes().startswith(b"\x89PNG")
    split = tmp_path / "data"
    shutil.copytree(tiny_data.root, split)
    write_splits(split, Split(train=("tiny_0",), validation=("tiny_1",), test=("tiny_2", "tiny_3")))
    measure[3] = split
    code, out, err = run(*measure, *files)
    assert code == 0, err
    (row,) = json.loads((tmp_path / "scores.json").read_text())["reconstruction"]
    assert list(row["cases"]) == ["tiny_3"]  # tiny_2 trained the autoencoder
    spec = tiny_data.spec.model_copy(update={"window_hu": (-100.0, 300.0)})
    write_spec(spec, tmp_path / "other.toml")
    code, _, err = run(*measure, "--lesions", tmp_path / "other.toml")
    assert code == 2
    assert "expected an autoencoder for scans like the dataset's; found one with other window_hu" in err
    code, _, err = run(*measure, "--data", tiny_data.root, "--lesions", tmp_path / "other.toml")
    assert code == 2
    assert "--lesions: expected one for each of the 2 --data, or none; found 1" in err


@pytest.mark.parametrize("method", ["difftumor", "med-ddpm"])
def test_another_method_is_trained_and_paints(
    run: Callable[..., Answer],
    split_data: Dataset,
    tiny_autoencoder_run: Path,
    tmp_path: Path,
    method: str,
) -> None:
    settings = tmp_path / "mine.toml"
    network = "channels = [8, 8]\nattention_levels = [1]\nblocks_per_level = 1\nnum_steps = 2\nnum_levels = 20\n"
    settings.write_text(
        f"[difftumor]\npatch_voxels = 16\npatches_per_lesion = 1\n{network}[med_ddpm]\npatch_voxels = 16\n{network}"
        '[synthesis]\nnum_steps = 2\nsampler = "ddim"\ninit = "noise"\nkeep_noise = false\n'
        "accept_all = true\n"
    )
    common = ("--data", split_data.root, "--preset", "demo", "--config", settings)
    out = tmp_path / method
    train = ["train", "diffusion", "--method", method, *common, "--out", out]
    if method == "difftumor":
        train += ["--autoencoder", tiny_autoencoder_run]
        code, said, err = run(*train, "--type", "dark")
        assert code == 0, err
        assert "dark trained; the models of other lesion types are not there yet" in said
    code, said, err = run(*train)
    assert code == 0, err
    assert f"{out} is finished" in said
    cohort = tmp_path / "synthetic"
    code, _, err = run("synthesize", "--model", out, *common, "--count", "bright=1", "--out", cohort)
    assert code == 0, err
    assert json.loads((cohort / "provenance.jsonl").read_text())["method"] == method
