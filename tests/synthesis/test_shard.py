"""Shares cover the cases once, whoever deals them out."""

import pytest

from promptlesion.synthesis.shard import Shard, own_shard

ARRAY = {"SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "4"}


@pytest.mark.parametrize(("count", "parts"), [(1, 1), (3, 1), (1, 4), (3, 4)])
def test_shares_and_their_parts_cover_every_case_once(count: int, parts: int) -> None:
    shards = [Shard(index, count).part(part, parts) for index in range(count) for part in range(parts)]
    assert sorted(number for shard in shards for number in shard.of(range(50))) == list(range(50))
    for index in range(count):
        own = [number for part in range(parts) for number in Shard(index, count).part(part, parts).of(range(50))]
        assert sorted(own) == Shard(index, count).of(range(50))


def test_what_is_in_a_share() -> None:
    assert Shard(1, 3).of("abcdefgh") == ["b", "e", "h"]
    assert Shard(2, 3).of("ab") == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Shard(0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4"}, Shard(2, 4)),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "3"}, Shard(0, 4)),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "9"}, Shard(3, 4)),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "3"}, Shard(1, 3)),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "2"}, Shard(1, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, Shard(0, 1)),  # the batch script itself: nobody does the rest
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "5", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, Shard(1, 4)),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "5", "RANK": "1", "WORLD_SIZE": "2"}, Shard(1, 2)),
    ],
)
def test_the_environment_says_whose_share_it_is(environment: dict[str, str], expected: Shard) -> None:
    assert own_shard(environment) == expected


def test_srun_in_an_array_shares_every_tasks_share() -> None:
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}
    shards = [
        own_shard({**ARRAY, **step, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_PROCID": str(rank)})
        for task in (3, 5, 7, 9)
        for rank in range(2)
    ]
    assert sorted(number for shard in shards for number in shard.of(range(40))) == list(range(40))


def test_the_process_itself_has_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", *ARRAY, "SLURM_ARRAY_TASK_ID", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    assert own_shard() == Shard(0, 1)


def test_an_array_with_gaps_is_refused() -> None:
    found = {**ARRAY, "SLURM_ARRAY_TASK_ID": "17"}
    with pytest.raises(ValueError, match=r"SLURM_ARRAY_TASK_ID: expected the number of one of 4 evenly spaced tasks"):
        own_shard(found)
