from pathlib import Path

import pytest

from promptlesion.data.spec import DatasetError, DatasetSpec, read_spec, write_spec

# The example of design.md, section 3.
EXAMPLE = """
[preprocessing]
window_hu = [-175, 250]            # to [-1, 1]
spacing_mm = [1.0, 1.0, 1.5]

[lesions.non_calcified_plaque]
label = 4
host = ["wall"]
diameter_mm = [1.5, 8.0]
hu = [-50, 130]

[lesions.calcified_plaque]
label = 3
host = ["wall", "lumen"]
diameter_mm = [1.5, 6.0]
hu = [130, 1300]
"""
EXAMPLES = Path(__file__).parents[2] / "examples"


def written(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "lesions.toml"
    path.write_text(content)
    return path


def test_the_order_of_the_tables_is_the_prompt_order(tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path, EXAMPLE))
    assert [lesion.name for lesion in spec.lesions] == ["non_calcified_plaque", "calcified_plaque"]
    assert spec.lesions[1].host == ("wall", "lumen")
    assert spec.window_hu == (-175.0, 250.0)
    assert spec.spacing_mm == (1.0, 1.0, 1.5)
    assert spec.subject_pattern is None


def test_shape_and_lumen_are_read_and_written(tmp_path: Path) -> None:
    content = EXAMPLE.replace("label = 4", 'label = 4\nshape = "crescent"\nlumen = ["lumen"]')
    spec = read_spec(written(tmp_path, content))
    assert [(lesion.shape, lesion.lumen) for lesion in spec.lesions] == [("crescent", ("lumen",)), ("ellipsoid", ())]
    write_spec(spec, tmp_path / "again.toml")
    assert read_spec(tmp_path / "again.toml") == spec
    assert (tmp_path / "again.toml").read_text().count("lumen") == 3  # once as shape's label, twice in hosts and names


def test_names_in_any_script_are_read_and_written(tmp_path: Path, spec: DatasetSpec) -> None:
    first, second, *others = spec.lesions
    lesions = (
        first.model_copy(update={"name": "опухоль_печени", "host": ("печень", "𠮷")}),
        second.model_copy(update={"name": "肝肿瘤", "host": ('a "quoted" name',)}),
        *others,
    )
    path = tmp_path / "lesions.toml"
    write_spec(spec.model_copy(update={"lesions": lesions}), path)
    assert read_spec(path).lesions == lesions


@pytest.mark.parametrize("pattern", [None, r'^(\w+?)_"(\d+)\s$'])
def test_what_is_written_is_read_back(tmp_path: Path, spec: DatasetSpec, pattern: str | None) -> None:
    first, *others = spec.lesions
    bulging = first.model_copy(update={"exophytic_share": 0.4})
    original = spec.model_copy(update={"subject_pattern": pattern, "lesions": (bulging, *others)})
    path = tmp_path / "lesions.toml"
    write_spec(original, path)
    assert read_spec(path) == original


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[-175, 250]",
            "[250, -175]",
            r"window_hu: expected \[low, high\] with low < high, found \[250.0, -175.0\]",
        ),
        ("[-175, 250]", "[-175]", "window_hu.1: Field required"),
        ("window_hu", "window", "window_hu: Field required"),
        ("[1.0, 1.0, 1.5]", "[1.0, 0, 1.5]", r"spacing_mm.1: Input should be greater than 0 \(found 0\)"),
        ("[1.0, 1.0, 1.5]", "[1.0, nan, 1.5]", r"spacing_mm.1: .*\(found nan\)"),
        ("label = 4", "label = 0", "lesions.non_calcified_plaque.label: Input should be greater"),
        (
            "label = 4",
            "label = 3",
            r"lesions: expected a label of its own for every lesion type, found \[3, 3\]",
        ),
        ("label = 4", "lable = 4", "lesions.non_calcified_plaque.lable: Extra inputs are not permitted"),
        ('["wall"]', '"wall"', r"lesions.non_calcified_plaque.host: .*tuple \(found 'wall'\)"),
        (
            "[lesions.non_calcified_plaque]",
            '[lesions."soft plaque"]',
            "lesions.soft plaque.name: String should match",
        ),
        (
            "label = 4",
            'label = 4\nshape = "crescent"',
            r'lesions.non_calcified_plaque: expected lumen to name labels where shape is "crescent" .* lumen \[\]',
        ),
        (
            "label = 4",
            'label = 4\nlumen = ["lumen"]',
            r'lesions.non_calcified_plaque: expected lumen .* nowhere else, found shape "ellipsoid" and lumen',
        ),
        (
            "label = 4",
            'label = 4\nshape = "crescent"\nlumen = ["wall"]',
            "lesions.non_calcified_plaque: expected a lumen apart from the host, found wall in both",
        ),
        (
            "label = 4",
            "label = 4\nexophytic_share = 1.0",
            "lesions.non_calcified_plaque.exophytic_share: .* less than 1",
        ),
        ("label = 4", 'label = 4\nshape = "round"', "lesions.non_calcified_plaque.shape: Input should be 'ellipsoid',"),
        ("[preprocessing]", "[prepocessing]", r"expected the tables .* found \['prepocessing'\]"),
        (
            "[preprocessing]",
            "[subjects]\nregex = 'x'\n[preprocessing]",
            "only `pattern` in .subjects., found .'regex'",
        ),
        (
            "[preprocessing]",
            "[subjects]\npattern = 'x'\n[preprocessing]",
            "expected a group that holds the subject",
        ),
        ("[preprocessing]", "[subjects]\npattern = '(x'\n[preprocessing]", "expected a regular expression"),
        ("[preprocessing]", "subjects = 3\n[preprocessing]", "expected subjects to be a table, found 3"),
        ("[preprocessing]", "[preprocessing", "expected a TOML file, found an error"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = written(tmp_path, EXAMPLE.replace(old, new, 1))
    with pytest.raises(DatasetError, match=message) as raised:
        read_spec(path)
    assert str(raised.value).startswith(str(path))


def test_lesions_that_are_no_tables(tmp_path: Path) -> None:
    header = EXAMPLE.split("[lesions.", maxsplit=1)[0]
    for lesions, message in (
        ("", "lesions: Tuple should have at least 1 item"),
        ("[lesions]\nplaque = 3", "expected lesions.plaque to be a table, found 3"),
        ("[[lesions]]\nlabel = 3", "expected lesions to be a table"),
    ):
        with pytest.raises(DatasetError, match=message):
            read_spec(written(tmp_path, header + lesions))


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"lesions\.toml: expected .* found none; write one .* --lesions"):
        read_spec(tmp_path / "lesions.toml")


def test_every_field_says_what_it_is() -> None:
    for model in (DatasetSpec, DatasetSpec.model_fields["lesions"].annotation.__args__[0]):
        assert all(field.description for field in model.model_fields.values())


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_the_examples_are_read(path: Path) -> None:
    assert read_spec(path).lesions


def test_a_byte_order_mark_before_the_toml_is_no_matter(spec: DatasetSpec, tmp_path: Path) -> None:
    path = tmp_path / "lesions.toml"
    write_spec(spec, path)
    path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert read_spec(path) == spec
