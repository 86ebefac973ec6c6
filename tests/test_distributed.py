import os
import time

import pytest
import torch
import torch.distributed as dist

from tests.distributed import run_group, run_pair


def total(values: torch.Tensor) -> tuple[int, int, torch.Tensor]:
    values = values * (dist.get_rank() + 1)
    dist.all_reduce(values)
    return os.getpid(), dist.get_world_size(), values


def fail_on(rank: int) -> None:
    if dist.get_rank() == rank:
        raise ValueError(f"on purpose on rank {rank}")
    dist.barrier()


def sleep_on(rank: int, seconds: float) -> None:
    if dist.get_rank() == rank:
        time.sleep(seconds)


def test_collectives_run_and_processes_are_kept():
    first = run_pair(total, torch.ones(2))
    second = run_pair(total, torch.ones(2))
    assert [answer[0] for answer in first] == [answer[0] for answer in second]
    assert len({answer[0] for answer in first}) == 2
    for _, size, values in first:
        assert size == 2
        assert values.tolist() == [3.0, 3.0]


def test_an_error_carries_the_traceback_and_the_next_job_runs():
    with pytest.raises(RuntimeError, match=r"rank 1 of 2(.|\n)*fail_on(.|\n)*on purpose on rank 1"):
        run_pair(fail_on, 1)
    assert run_pair(total, torch.ones(1))[0][1] == 2


def test_a_hung_rank_is_named():
    with pytest.raises(TimeoutError, match=r"sleep_on: no answer from ranks \[0\] after 0.5 s"):
        run_group(2, sleep_on, 0, 60.0, timeout=0.5)
