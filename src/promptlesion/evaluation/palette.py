"""One set of colours for every figure and the report, which colour-blind readers can tell apart."""

from collections.abc import Iterable, Mapping, Sequence

Color = tuple[float, float, float]

_LESION_HEX = ("#E69F00", "#3FA7E0", "#D1495B", "#12A57C", "#CC79A7", "#F0E442")
_HOST_HEX = ("#8C96A3", "#C9B8A0", "#7F9C8A", "#A58FA8", "#B3A369", "#6F8FA8")
REAL_COLOR = "#3C4654"
SYNTHETIC_COLOR = "#12A57C"
TEXT_COLOR = "#1F2933"
MUTED_COLOR = "#6B7785"
GRID_COLOR = "#E3E7EC"


def lesion_colors(lesion_types: Sequence[str]) -> dict[str, str]:
    """Colour of each lesion type, as hex, by its place in the prompt order."""
    return {name: _LESION_HEX[index % len(_LESION_HEX)] for index, name in enumerate(lesion_types)}


def label_colors(labels: Mapping[str, int], lesion_labels: Iterable[int]) -> dict[int, Color]:
    """Colour of each label value: lesion types in strong colours, the other structures muted."""
    colors = {label: _rgb(_LESION_HEX[index % len(_LESION_HEX)]) for index, label in enumerate(lesion_labels)}
    others = [label for label in labels.values() if label != 0 and label not in colors]
    colors.update({label: _rgb(_HOST_HEX[index % len(_HOST_HEX)]) for index, label in enumerate(others)})
    return colors


def _rgb(color: str) -> Color:
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue
