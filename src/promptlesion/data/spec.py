"""`lesions.toml`: what a dataset folder says about its lesions and how its scans are prepared."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from promptlesion.data.attribute_names import ATTRIBUTES
from promptlesion.training.atomic import read_text, write_text

_SAME_SIZE = 0.01
"""By so much a diameter that is asked for may be missed, either way: whole voxels make it up."""


class DatasetError(ValueError):
    """A dataset folder, case or lesion type that is not as it should be; the message names it."""


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] >= bounds[1]:
        raise ValueError(f"expected [low, high] with low < high, found {list(bounds)}")
    return bounds


PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
HURange = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_ascending)]
LengthRange = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ascending)]


def _as_range(value: object) -> object:
    return (value, value) if isinstance(value, int | float) else value


def _not_descending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"expected a number or [low, high] with low <= high, found {list(bounds)}")
    return bounds


AskedRange = Annotated[tuple[FiniteFloat, FiniteFloat], BeforeValidator(_as_range), AfterValidator(_not_descending)]


class LesionType(BaseModel):
    """One kind of lesion: its label, where it may grow, how large and how bright it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[\w-]+$",
        description="Name of the type, as prompts and commands use it: letters of any script, digits, `_` and `-`.",
    )
    label: int = Field(ge=1, le=255, description="Its value in the label maps.")
    host: tuple[str, ...] = Field(
        default=(),
        description="Names of the labels it may be placed in; a dataset with none here is refused.",
    )
    diameter_mm: LengthRange = Field(description="Smallest and largest diameter to draw, in millimetres.")
    hu: HURange = Field(description="Plausible mean inside the lesion, lowest and highest, in Hounsfield units.")
    shape: Literal["ellipsoid", "real", "crescent"] = Field(
        default="ellipsoid",
        description="How its masks are drawn: deformed ellipsoids, real ones cut from the training labels, or "
        "crescents in the wall of a vessel.",
    )
    lumen: tuple[str, ...] = Field(
        default=(),
        description="Names of the labels that a crescent lies against and never enters; no other shape has any.",
    )
    exophytic_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Largest share of a lesion's volume that may bulge out of its host into the fat beside it, as "
        "tumours of the kidney and the plaque of remodelled arteries do.",
    )

    attributes: dict[str, AskedRange] = Field(
        default={},
        description="What painted lesions shall be like, a number or [low, high] by attribute, "
        f"{', '.join(ATTRIBUTES)}; all else is drawn as training lesions have it.",
    )

    @field_validator("attributes")
    @classmethod
    def _attributes_are_known(cls, attributes: dict[str, Any]) -> dict[str, Any]:
        unknown = [name for name in attributes if name not in ATTRIBUTES or name == "diameter_mm"]
        if unknown:
            askable = [name for name in ATTRIBUTES if name != "diameter_mm"]
            raise ValueError(f"expected some of {', '.join(askable)}; diameter_mm is a key of its own")
        if {"mean_hu", "contrast_hu"} <= attributes.keys():
            raise ValueError("expected mean_hu or contrast_hu, each of which tells the other in its host; found both")
        return attributes

    @model_validator(mode="after")
    def _mean_is_plausible(self) -> "LesionType":
        low, high = self.attributes.get("mean_hu", self.hu)
        if low < self.hu[0] or high > self.hu[1]:
            raise ValueError(
                f"expected attributes to ask for a mean_hu within hu, {list(self.hu)}; found {[low, high]}"
            )
        return self

    @model_validator(mode="after")
    def _crescents_have_a_lumen(self) -> "LesionType":
        if (self.shape == "crescent") != bool(self.lumen):
            raise ValueError(
                f'expected lumen to name labels where shape is "crescent" and nowhere else, found shape "{self.shape}" '
                f"and lumen {list(self.lumen)}"
            )
        shared = sorted(set(self.lumen) & set(self.host))
        if shared:
            raise ValueError(f"expected a lumen apart from the host, found {', '.join(shared)} in both")
        return self


class DatasetSpec(BaseModel):
    """The whole of `lesions.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_hu: HURange = Field(description="Hounsfield units that map to [-1, 1].")
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        description="Voxel size, in millimetres along x, y and z, that the networks work at."
    )
    lesions: tuple[LesionType, ...] = Field(min_length=1, description="Lesion types in prompt order.")
    subject_pattern: str | None = Field(
        default=None,
        description="Regular expression whose first group is the subject in a case's name; without it every "
        "case is a subject of its own.",
    )

    def facts(self) -> dict[str, object]:
        """Return what a network trained on the dataset is bound to, in JSON types: window, spacing, types in order."""
        return {
            "window_hu": list(self.window_hu),
            "spacing_mm": list(self.spacing_mm),
            "lesion_types": [lesion.name for lesion in self.lesions],
        }

    def asking(self, attributes: Mapping[str, Mapping[str, Any]]) -> "DatasetSpec":
        """Return it with other attributes asked for, by type and name: a number, or lowest and highest.

        `diameter_mm` takes the place of the type's sizes.

        Raises:
            DatasetError: an unknown type or attribute, or no number.
        """
        types = {lesion.name: lesion for lesion in self.lesions}
        for name, asked in attributes.items():
            if name not in types:
                raise DatasetError(f"attributes: expected a lesion type of {', '.join(types)}; found {name!r}")
            own = types[name].model_dump()
            further = dict(asked)
            if "diameter_mm" in further:
                low, high = cast(tuple[float, float], _as_range(further.pop("diameter_mm")))
                own["diameter_mm"] = (low, high) if low < high else (low * (1 - _SAME_SIZE), low * (1 + _SAME_SIZE))
            other = {"mean_hu": "contrast_hu", "contrast_hu": "mean_hu"}
            given_up = {other[key] for key in further if key in other} - further.keys()
            own["attributes"] = {k: v for k, v in own["attributes"].items() if k not in given_up} | further
            try:
                types[name] = LesionType.model_validate(own)
            except ValidationError as error:
                texts = [finding["msg"].removeprefix("Value error, ") for finding in error.errors()]
                raise DatasetError(f"attributes of {name}: {'; '.join(texts)}; found {dict(asked)}") from error
        return self.model_copy(update={"lesions": tuple(types.values())})

    @field_validator("lesions")
    @classmethod
    def _lesions_differ(cls, lesions: tuple[LesionType, ...]) -> tuple[LesionType, ...]:
        for key in ("name", "label"):
            values = [getattr(lesion, key) for lesion in lesions]
            if len(set(values)) < len(values):
                raise ValueError(f"expected a {key} of its own for every lesion type, found {values}")
        return lesions

    @field_validator("subject_pattern")
    @classmethod
    def _has_group(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                num_groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"expected a regular expression, found {pattern!r}: {error}") from error
            if num_groups < 1:
                raise ValueError(f"expected a group that holds the subject, found none in {pattern!r}")
        return pattern


def read_spec(path: Path) -> DatasetSpec:
    """Read a `lesions.toml`; raises `DatasetError` naming the file, the key and what is wrong with it."""
    if not path.is_file():
        raise DatasetError(
            f"{path}: expected a file that names the lesion types, found none; write one (the README shows "
            "how) or name it with --lesions"
        )
    try:
        content = tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: expected a TOML file, found an error: {error}") from error
    try:
        return DatasetSpec.model_validate(_flattened(content, path))
    except ValidationError as error:
        raise DatasetError(_in_words(error, path, list(content.get("lesions", {})))) from error


def write_spec(spec: DatasetSpec, path: Path) -> None:
    """Write a `lesions.toml` that `read_spec` reads back equal."""
    lines = [
        "[preprocessing]",
        f"window_hu = {_toml(spec.window_hu)}",
        f"spacing_mm = {_toml(spec.spacing_mm)}",
    ]
    if spec.subject_pattern is not None:
        lines += ["", "[subjects]", f"pattern = {_toml(spec.subject_pattern)}"]
    for lesion in spec.lesions:
        lines += ["", f"[lesions.{toml_key(lesion.name)}]"]
        values = lesion.model_dump(exclude={"name"}, exclude_defaults=True)
        lines += [f"{key} = {_toml(value)}" for key, value in values.items()]
    write_text(path, "\n".join(lines) + "\n")


def toml_key(name: str) -> str:
    """Return a name as a key of TOML, which wants quotes around all but plain letters, digits, `_` and `-`."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _flattened(content: dict[str, Any], path: Path) -> dict[str, Any]:
    tables = {key: content.get(key, {}) for key in ("preprocessing", "lesions", "subjects")}
    unknown = sorted(set(content) - set(tables))
    if unknown:
        raise DatasetError(f"{path}: expected the tables [preprocessing], [lesions.NAME], [subjects], found {unknown}")
    _check_tables(tables, path)
    _check_tables({f"lesions.{name}": table for name, table in tables["lesions"].items()}, path)
    if set(tables["subjects"]) - {"pattern"}:
        raise DatasetError(f"{path}: expected only `pattern` in [subjects], found {sorted(tables['subjects'])}")
    flat = dict(tables["preprocessing"])
    flat["lesions"] = [{**table, "name": name} for name, table in tables["lesions"].items()]
    if "pattern" in tables["subjects"]:
        flat["subject_pattern"] = tables["subjects"]["pattern"]
    return flat


def _check_tables(tables: dict[str, Any], path: Path) -> None:
    for key, table in tables.items():
        if not isinstance(table, dict):
            raise DatasetError(f"{path}: expected {key} to be a table, found {table!r}")


def _in_words(error: ValidationError, path: Path, lesion_names: list[str]) -> str:
    findings = []
    for finding in error.errors(include_url=False):
        keys = list(finding["loc"])
        if len(keys) > 1 and keys[0] == "lesions" and isinstance(keys[1], int):
            keys[1] = lesion_names[keys[1]]
        where = ".".join(str(key) for key in keys)
        message = finding["msg"].removeprefix("Value error, ")
        is_missing = finding["type"] == "missing"
        findings.append(f"{where}: {message}" + ("" if is_missing else f" (found {finding['input']!r})"))
    return f"{path}: " + "; ".join(findings)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml_key(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
