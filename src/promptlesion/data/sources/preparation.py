"""What a conversion did, for people to read: notes of each case inside the dataset, a report of all beside it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from promptlesion.data.sources.source import Source, SourceCase, counted
from promptlesion.training.atomic import read_json, write_text

_CARDS = "prepared"


def card_path(out: Path, name: str) -> Path:
    """Return where it stands what a case was made from."""
    return out / _CARDS / f"{name}.json"


def read_card(out: Path, name: str) -> dict[str, Any]:
    """Return what an earlier run noted of a case; nothing where there is no card."""
    path = card_path(out, name)
    return read_json(path) if path.is_file() else {}


def read_cards(out: Path) -> dict[str, dict[str, Any]]:
    """Return the cards of all cases by name; none for a dataset that `prepare` did not write."""
    return {path.stem: read_json(path) for path in sorted((out / _CARDS).glob("*.json"))}


def counted_notes(cards: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the cases' notes, each once with the first case and how many more it is true of."""
    return counted((note, name) for name, card in cards.items() for note in card.get("notes", ()))


def place_of(case: SourceCase) -> str:
    """Return what messages call a case: where its files lie."""
    return case.place or case.origin.get("file") or case.origin.get("folder") or case.name


def report_path(out: Path) -> Path:
    """Return where the report lies: beside the dataset, as it names files, and so perhaps patients."""
    return out.resolve().with_name(f"{out.resolve().name}-prepared.txt")


def write_report(
    source: Source, out: Path, *, cards: Mapping[str, Mapping[str, Any]], refused: Iterable[str], said: Iterable[str]
) -> None:
    """Write what was kept, joined, assumed and left out, a line each.

    `cards` are of the cases that are there, `refused` says why others are not, `said` what else there is to know.
    """
    kept = [
        f"kept: {case.name} from {'; '.join([place_of(case), *cards[case.name].get('notes', ())])}"
        for case in source.cases
        if case.name in cards
    ]
    lines = [
        f"{out}: {len(kept)} cases of the layout {source.layout}",
        *(f"note: {note}" for note in (*source.notes, *said)),
        *(f"left out: {reason}" for reason in refused),
        *kept,
    ]
    write_text(report_path(out), "".join(" ".join(line.split()) + "\n" for line in lines))
