"""Every setting is read, described, checked and written back; a wrong one is named."""

import ast
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

import promptlesion
from promptlesion.config import Config, ConfigError, as_toml, preset_names, resolve_config

SOURCE = Path(promptlesion.__file__).parent
READERS = {
    "data": ["data/config.py"],
    "autoencoder": ["autoencoder", "training"],
    "diffusion": ["diffusion", "training"],
    "difftumor": ["baselines", "diffusion", "training"],
    "med_ddpm": ["baselines", "training"],
    "synthesis": ["synthesis", "masks"],
    "segmentation": ["segmentation", "training"],
    "copy_paste": ["baselines"],
    "intensity": ["baselines"],
    "evaluation": ["experiment", "evaluation", "evaluation/config.py"],
    "demo": ["experiment", "front"],
    "cluster": ["training/cluster.py"],
    "hardware": ["training", "diffusion", "synthesis"],
}
"""Where the settings of each section are used, beside the file that defines them."""
SECTIONS = list(Config.model_fields)


def section(name: str) -> type[BaseModel]:
    return type(getattr(Config(), name))


def attributes_read(paths: list[str]) -> set[str]:
    """Names of all attributes that these files read; of folders, the stage's own config.py does not count."""
    files = [f for path in paths for f in (*(SOURCE / path).rglob("*.py"), SOURCE / path) if f.suffix == ".py"]
    counted = [f for f in files if f.name != "config.py" or str(f.relative_to(SOURCE)) in paths]
    trees = [ast.parse(f.read_text()) for f in counted]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


def test_every_section_is_looked_at() -> None:
    assert set(READERS) == set(SECTIONS)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_setting_is_read_somewhere(name: str) -> None:
    assert set(section(name).model_fields) <= attributes_read(READERS[name])


@pytest.mark.parametrize("name", SECTIONS)
def test_every_setting_says_what_it_is(name: str) -> None:
    for field, info in section(name).model_fields.items():
        assert info.description and len(info.description) > 10, field
        assert not info.description.endswith("."), field


@pytest.mark.parametrize("name", [*SECTIONS, None])
def test_unknown_keys_are_refused_and_nothing_can_be_changed(name: str | None) -> None:
    model = Config if name is None else section(name)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        model.model_validate({"no_such_setting": 1})
    settings = model()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, next(iter(model.model_fields)), 1)


def test_there_are_the_three_presets() -> None:
    assert preset_names() == ["default", "demo", "paper"]


def test_paper_is_the_fields_defaults_and_the_default_preset_differs_in_what_paints_alone() -> None:
    paper = resolve_config(preset="paper")
    assert paper == Config()
    assert resolve_config(preset="demo") != paper
    fast = resolve_config(preset="default")
    assert (fast.synthesis.sampler, fast.synthesis.num_steps) == ("ddim", 10)
    assert (fast.diffusion.attributes, fast.synthesis.match_moments) == (True, True)
    lengths = ("patch_voxels", "num_levels", "channels", "num_steps", "batch_size", "prompt_encoder", "prompt_block")
    assert all(getattr(fast.diffusion, name) == getattr(paper.diffusion, name) for name in lengths)
    assert fast.model_copy(update={"synthesis": paper.synthesis, "diffusion": paper.diffusion}) == paper


def test_paper_has_the_papers_figures() -> None:
    """Design document, section 1: the table of the three stages."""
    config = resolve_config(preset="paper")
    autoencoder, diffusion, segmentation = config.autoencoder, config.diffusion, config.segmentation
    assert (autoencoder.num_epochs, autoencoder.batch_size, autoencoder.learning_rate) == (1000, 4, 3e-4)
    assert (autoencoder.codebook_size, autoencoder.latent_channels, autoencoder.patch_voxels) == (16384, 8, 96)
    assert (diffusion.num_steps, diffusion.batch_size, diffusion.learning_rate) == (60_000, 4, 1e-4)
    assert (diffusion.num_levels, diffusion.beta_start, diffusion.beta_end) == (400, 1e-4, 2e-2)
    assert (diffusion.prediction, config.synthesis.init) == ("noise", "healthy")
    assert (config.synthesis.sampler, config.synthesis.num_steps) == ("ancestral", 400)
    assert config.segmentation.synthetic_ratio == 1
    assert (segmentation.num_epochs, segmentation.patience_epochs) == (500, 25)
    assert (segmentation.batch_size, segmentation.learning_rate) == (12, 2e-4)
    assert {stage.adam_betas for stage in (autoencoder, diffusion, segmentation)} == {(0.9, 0.999)}


@pytest.mark.parametrize("preset", ["default", "demo", "paper"])
def test_what_is_shown_can_be_read_back(tmp_path: Path, preset: str) -> None:
    config = resolve_config(preset=preset, settings=["diffusion.num_steps=7", "segmentation.steps_per_epoch=3"])
    path = tmp_path / "mine.toml"
    path.write_text(as_toml(config))
    # what is unset cannot be written in TOML, so only the same preset leaves it unset
    assert resolve_config(preset=preset, file=path) == config


def test_what_is_shown_explains_every_setting() -> None:
    text = as_toml(Config())
    for name in SECTIONS:
        for field, info in section(name).model_fields.items():
            assert any(field in line and str(info.description) in line for line in text.splitlines()), field


def test_settings_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[diffusion]\nnum_steps = 11\nbatch_size = 3\n[demo]\nphantom_cases = 5\n")
    config = resolve_config(preset="demo", file=path, settings=["diffusion.num_steps=12", "diffusion.num_steps=13"])
    assert (config.diffusion.num_steps, config.diffusion.batch_size, config.demo.phantom_cases) == (13, 3, 5)
    preset = resolve_config(preset="demo")
    assert config.diffusion.channels == preset.diffusion.channels
    assert config.autoencoder == preset.autoencoder


@pytest.mark.parametrize(
    ("setting", "section_name", "field", "expected"),
    [
        ("diffusion.num_steps=12", "diffusion", "num_steps", 12),
        ("diffusion.learning_rate=1e-3", "diffusion", "learning_rate", 1e-3),
        ("diffusion.rescale_betas=true", "diffusion", "rescale_betas", True),
        ("diffusion.prompt_encoder=one-hot", "diffusion", "prompt_encoder", "one-hot"),
        ('diffusion.prompt_encoder="one-hot"', "diffusion", "prompt_encoder", "one-hot"),
        ("segmentation.channels=[8, 16]", "segmentation", "channels", (8, 16)),
        ("diffusion.num_steps = 5", "diffusion", "num_steps", 5),
    ],
)
def test_a_setting_is_read_as_toml_or_as_a_bare_word(
    setting: str, section_name: str, field: str, expected: object
) -> None:
    config = resolve_config(preset="demo", settings=[setting])
    assert getattr(getattr(config, section_name), field) == expected


@pytest.mark.parametrize("setting", ["num_steps=4", "diffusion.num_steps", "a.b.c=1", "=1", ".x=1", "diffusion.=3", ""])
def test_a_setting_of_another_form_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"expected SECTION\.FIELD=VALUE, for example diffusion\.num_steps=400"):
        resolve_config(preset="demo", settings=[setting])


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (["diffusion.num_step=4"], ["diffusion.num_step", "Extra inputs", "found 4"]),
        (["diffusoin.num_steps=4"], ["diffusoin", "Extra inputs"]),
        (["diffusion.num_steps=0"], ["diffusion.num_steps", "greater than or equal to 1", "found 0"]),
        (["diffusion.num_steps=many"], ["diffusion.num_steps", "valid integer", "found 'many'"]),
        (["synthesis.sampler=euler"], ["synthesis.sampler", "'ancestral', 'ddim' or 'dpm-solver++'", "found 'euler'"]),
        (["data.test_fraction=1.5", "demo.phantom_cases=1"], ["data.test_fraction", "demo.phantom_cases"]),
        (["autoencoder.adversarial_start_epoch=99999"], ["autoencoder", "adversarial_start_epoch", "99999"]),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected_and_found(settings: list[str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config(preset="demo", settings=settings)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_the_patch_must_suit_autoencoder_and_prompt_encoder() -> None:
    with pytest.raises(ConfigError, match=r"diffusion\.patch_voxels: expected a multiple of 12, 4 for the .*found 32"):
        resolve_config(preset="demo", settings=["diffusion.patch_voxels=32"])
    one_hot = ["diffusion.patch_voxels=32", "diffusion.prompt_encoder=one-hot"]
    assert resolve_config(preset="demo", settings=one_hot).diffusion.patch_voxels == 32
    wide = ["autoencoder.widths=[8, 8, 8, 8, 8]", "autoencoder.patch_voxels=32"]
    with pytest.raises(ConfigError, match=r"expected a multiple of 16, 16 for .* times 1 .*found 40"):
        resolve_config(preset="demo", settings=[*wide, *one_hot[1:], "diffusion.patch_voxels=40"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("much", "Input should be a valid number.*; found 'much'"),
        ("-1", "Input should be greater than or equal to 0; found -1"),
        ("fitted", "expected a number, as guidance is fitted no more; .*match_moments.*; found 'fitted'"),
    ],
)
def test_guidance_is_a_number(value: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"^configuration: synthesis\.guidance_scale: .*{expected}$"):
        resolve_config(settings=[f"synthesis.guidance_scale={value}"], preset="paper")


def test_guidance_wants_a_prompt() -> None:
    without = ["diffusion.prompt_encoder=none", "diffusion.attributes=false"]
    with pytest.raises(ConfigError, match=r"synthesis\.guidance_scale: expected 1, .* no prompt .*found 1\.5"):
        resolve_config(preset="demo", settings=[*without, "synthesis.guidance_scale=1.5"])
    assert resolve_config(preset="demo", settings=without).diffusion.prompt_encoder == "none"


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ConfigError, match="--preset: expected one of default, demo, paper; found 'papers'"):
        resolve_config(preset="papers")


def test_a_file_that_is_missing_or_no_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    with pytest.raises(ConfigError, match=r"mine\.toml: expected a TOML file; found none"):
        resolve_config(preset="demo", file=path)
    path.write_text("[diffusion\n")
    with pytest.raises(ConfigError, match=r"mine\.toml: expected TOML; found "):
        resolve_config(preset="demo", file=path)


@pytest.mark.parametrize("content", ["diffusion = 3\n", "[diffusion]\nnum_steps = [1]\n"])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match="diffusion"):
        resolve_config(preset="demo", file=path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"mine\.toml: expected TOML; found "):
        resolve_config(preset="demo", file=path)


def test_split_options_are_the_fields() -> None:
    config = resolve_config(preset="demo", settings=["data.test_fraction=0.4", "data.split_seed=5"])
    assert config.data.split_options() == {"validation_fraction": 0.15, "test_fraction": 0.4, "seed": 5}
