"""Where synthetic cases come from: `provenance.jsonl` in the folder of a synthetic dataset, one line a case."""

import json
from pathlib import Path
from typing import Any

from promptlesion.data.spec import DatasetError
from promptlesion.training.atomic import read_text

PROVENANCE_FILE = "provenance.jsonl"


def read_provenance(root: Path) -> dict[str, dict[str, Any]]:
    """Return the line of every synthetic case, by name; nothing for a folder of real scans."""
    path = root / PROVENANCE_FILE
    if not path.is_file():
        return {}
    try:
        lines = [json.loads(line) for line in read_text(path).splitlines() if line]
        return {str(line["case"]): line for line in lines}
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(f"{path}: expected a JSON object with a `case` in every line, found {error}") from error
