"""Real gloo process groups for tests, started once per pytest process and kept.

    def job(rank_dependent, arguments):          # a module-level function of a test module
        return torch.distributed.get_rank()

    assert run_pair(job, 1, 2) == [0, 1]

Every rank gets the same arguments and the results come back in rank order. Jobs run on one thread, with the process
group initialised and the random seeds reset. A job must leave the default process group as it found it.
"""

import atexit
import functools
import importlib
import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import wait
from typing import Any

TIMEOUT = 120.0  # seconds a job may take; the first one also pays for starting the processes and importing torch


def run_pair(function: Callable, *args: Any, timeout: float = TIMEOUT) -> list:
    """Run ``function(*args)`` on both ranks of a two-process gloo group. Returns [result of rank 0, of rank 1].

    Args:
        function: a module-level function. It is sent by name, so the test module must be importable.
        args: picklable values.
        timeout: seconds until the job counts as hung.

    Raises:
        RuntimeError: the job raised on some rank, or a process died; carries the traceback of each such rank.
        TimeoutError: a rank did not answer in time.
    After either the processes are ended, because their collectives may no longer match; the next call starts new ones.
    """
    return run_group(2, function, *args, timeout=timeout)


def run_group(size: int, function: Callable, *args: Any, timeout: float = TIMEOUT) -> list:
    """As ``run_pair``, on ``size`` ranks."""
    return _group(size).run(function, args, timeout)


@functools.cache
def _group(size: int) -> "_Group":
    group = _Group(size)
    atexit.register(group.stop)
    return group


class _Group:
    def __init__(self, size: int):
        self.size, self.processes, self.pipes = size, [], []

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.folder = tempfile.TemporaryDirectory(prefix="densessl_gloo_")
        kept = {key: os.environ.get(key) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        os.environ.update(dict.fromkeys(kept, "1"))  # read when a child imports torch
        try:
            for rank in range(self.size):
                ours, theirs = context.Pipe()
                arguments = (rank, self.size, os.path.join(self.folder.name, "store"), theirs)
                process = context.Process(target=_worker, args=arguments, daemon=True)
                process.start()
                theirs.close()  # so that a dead worker reads as end of file here
                self.processes.append(process)
                self.pipes.append(ours)
        finally:
            for key, value in kept.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})

    def stop(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.kill()
            process.join()
        if self.processes:
            self.folder.cleanup()
        self.processes, self.pipes = [], []

    def run(self, function: Callable, args: tuple, timeout: float) -> list:
        if not self.processes:
            self.start()
        # Plain pickle: multiprocessing's own would hand tensors over as shared-memory descriptors, which die with
        # their sender.
        job = pickle.dumps((function.__module__, function.__qualname__, args))
        try:
            for pipe in self.pipes:
                pipe.send_bytes(job)
            results, errors = self._collect(time.monotonic() + timeout)
        except BaseException:
            self.stop()
            raise
        if errors:
            self.stop()
            raise RuntimeError(
                "\n".join(f"rank {rank} of {self.size}: {error}" for rank, error in sorted(errors.items()))
            )
        if len(results) < self.size:
            self.stop()
            silent = sorted(set(range(self.size)) - set(results))
            raise TimeoutError(f"{function.__qualname__}: no answer from ranks {silent} after {timeout} s")
        return [results[rank] for rank in range(self.size)]

    def _collect(self, deadline: float) -> tuple[dict[int, Any], dict[int, str]]:
        results, errors = {}, {}
        waiting = dict(zip(self.pipes, range(self.size)))
        while waiting:
            ready = wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            for pipe in ready:
                rank = waiting.pop(pipe)
                try:
                    succeeded, value = pickle.loads(pipe.recv_bytes())
                except EOFError:
                    succeeded, value = False, "the process died"
                (results if succeeded else errors)[rank] = value
            if errors:  # the others may be stuck in a collective: a moment for their tracebacks, no more
                deadline = min(deadline, time.monotonic() + 1.0)
        return results, errors


def _worker(rank: int, size: int, store: str, pipe) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=TIMEOUT)
    )
    while True:
        try:
            job = pipe.recv_bytes()
        except EOFError:  # the test run is over
            return
        try:
            module, name, args = pickle.loads(job)
            function = functools.reduce(getattr, name.split("."), importlib.import_module(module))
            torch.manual_seed(0)
            answer = pickle.dumps((True, function(*args)))
        except BaseException:
            answer = pickle.dumps((False, traceback.format_exc()))
        pipe.send_bytes(answer)
