"""Real scans in, real scans out: nothing of them changes but the lesions and their edges."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.synthesis.conftest import numbers_alone
from tests.synthesis.contract import check_contract, pairs

from promptlesion.data.dataset import open_dataset, read_case
from promptlesion.data.provenance import read_provenance
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import Synthesizer

EXAMPLES = Path(__file__).parents[2] / "examples"
SHARED = Path(__file__).parents[3] / "shared" / "data"
COHORTS = {
    "Dataset101_Sarcoma": ("sarcoma.toml", {"sarcoma": 4}),
    "Dataset103_AbdomenOrgans": ("abdomen.toml", {"liver_tumor": 2, "kidney_tumor": 1, "pancreas_tumor": 1}),
    "Dataset104_CTAVessel": ("vessel.toml", {"calcified_plaque": 3, "non_calcified_plaque": 2}),
}


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize("name", COHORTS)
def test_the_contract_holds_on_real_scans(noise_painter: Callable[..., Synthesizer], tmp_path: Path, name: str) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name}: not there")
    lesions, counts = COHORTS[name]
    scans = open_dataset(SHARED / name, EXAMPLES / lesions)
    names = [lesion.name for lesion in scans.spec.lesions]
    painter = noise_painter(
        scans.spec,
        mean_hu=(80.0,) * len(names),
        statistics=numbers_alone(**dict.fromkeys(names, (1,))),
        max_extent_mm=100.0,
    )
    config = SynthesisConfig(num_steps=1, accept_all=True)
    assert synthesize_cohort(scans, painter, counts=counts, config=config, out=tmp_path, seed=2).is_finished
    made = open_dataset(tmp_path)
    check_contract(made, scans)
    painted = [lesion["type"] for line in read_provenance(tmp_path).values() for lesion in line["lesions"]]
    assert {kind: painted.count(kind) for kind in counts} == counts
    if "lumen" in scans.labels:
        for case, source, _ in pairs(made):
            labels, before = (read_case(d, d.case(n))[1].array for d, n in ((made, case), (scans, source)))
            is_lumen = before == scans.labels["lumen"]
            assert np.array_equal(labels[is_lumen], before[is_lumen])
