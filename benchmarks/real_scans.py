"""Holds a cohort painted into real scans against its sources, and writes what was measured as JSON.

python benchmarks/real_scans.py --data DATASET --lesions FILE --cohort DATASET2 --out FILE
"""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

sys.path.append(str(Path(__file__).parents[1]))

from tests.synthesis.contract import check_contract, pairs

from promptlesion.data.dataset import Dataset, open_dataset, read_case
from promptlesion.training.atomic import write_json


def main(
    data: Annotated[Path, typer.Option()],
    lesions: Annotated[Path, typer.Option()],
    cohort: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
) -> None:
    """Check the contract of synthesis, count what entered a lumen, and list the lesions."""
    sources, made = open_dataset(data, lesions), open_dataset(cohort)
    check_contract(made, sources)
    painted = [lesion for _, _, line in pairs(made) for lesion in line["lesions"]]
    types = {}
    for name in dict.fromkeys(lesion["type"] for lesion in painted):
        own = [lesion for lesion in painted if lesion["type"] == name]
        kept = [lesion for lesion in own if lesion["is_accepted"]]
        types[name] = {
            "painted": len(kept),
            "refused by the quality filter": len(own) - len(kept),
            **{key: [lesion[key] for lesion in kept] for key in ("diameter_mm", "mean_hu", "std_hu", "contrast_hu")},
            "reasons": [lesion["rejections"][-1] for lesion in own if not lesion["is_accepted"]],
        }
    content = {
        "cases": len(made.cases),
        "contract": "holds",
        "lumen voxels relabelled": _lumen_voxels(made, sources),
        "types": types,
    }
    write_json(out, content)
    for name, found in types.items():
        hu = f"{np.mean(found['mean_hu']):.0f} HU" if found["painted"] else "none"
        print(f"{cohort.name}: {name}: {found['painted']} painted, mean {hu}")  # noqa: T201


def _lumen_voxels(made: Dataset, sources: Dataset) -> int | None:
    """Return how many voxels of a vessel's lumen have another label than before; None where no lumen is labelled."""
    if "lumen" not in sources.labels:
        return None
    changed = 0
    for case, source, _ in pairs(made):
        after, before = (read_case(d, d.case(n))[1].array for d, n in ((made, case), (sources, source)))
        changed += int((before[after != before] == sources.labels["lumen"]).sum())
    return changed


if __name__ == "__main__":
    typer.run(main)
