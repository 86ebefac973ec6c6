"""Schemas of loaders, loops, hooks, evaluators and processes, for which MMEngine's signatures say ``dict``."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict

import mmengine.registry as mmengine
from mmengine.dist import init_dist
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.priority import Priority
from mmengine.runner.utils import set_random_seed
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

from densessl.constraints import AutoCount, Config, Count, Depends, NonNegative, Range, Whole
from densessl.run_settings import LARGEST_SEED

LINKED = ("views", "view", "regions", "photometric")  # stated at the top of a config and used further down


class HookKeys(TypedDict, total=False):
    """Keys of a hook's config that the runner takes itself.

    Attributes:
        priority: a name such as "HIGH", or a number from 0 (first) to 100 (last).
    """

    priority: Annotated[int, Range(0, 100)] | Literal[tuple(Priority.__members__)]


class HookRules(TypedDict, total=False):
    """Arguments of the hooks of MMEngine and of the libraries built on it.

    Attributes:
        interval: iterations or epochs between two actions of the hook; -1 for never.
    """

    interval: Annotated[int, Range(1, also=(-1,))]


HOOK = Annotated[dict, Config(mmengine.HOOKS, also=HookKeys, refine=HookRules, closed=(CheckpointHook,), trial=True)]


class LoaderKeys(TypedDict, total=False):
    """Keys of a loader's config that the runner takes itself, and exact types of arguments of PyTorch's loader.

    Attributes:
        batch_size: images per process and iteration.
        largest_batch: upper bound of a batch size that is "auto".
        num_workers: number of loader processes; "auto" divides the cores of this machine by its training processes.
        dataset: the data set to load.
        sampler: order of the images.
        batch_sampler: how the order is split into batches.
        collate_fn: function that makes a batch from samples.
        worker_init_fn: function that each loader process runs first.
        num_batch_per_epoch: number of batches per epoch; by default all of the data set.
        disable_subprocess_warning: whether the warnings of loader processes are silenced.
    """

    batch_size: AutoCount | None
    largest_batch: AutoCount | None
    num_workers: Annotated[int, Range(0, auto=True)]
    dataset: Annotated[dict, Config(mmengine.DATASETS, filled=LINKED)]
    sampler: Annotated[dict, Config(mmengine.DATA_SAMPLERS, filled=("dataset", "seed"))] | None
    batch_sampler: Annotated[dict, Config(mmengine.DATA_SAMPLERS, filled=("sampler", "batch_size"))] | None
    collate_fn: Annotated[dict, Config(mmengine.FUNCTIONS, given=("samples", "data_batch"))]
    worker_init_fn: Annotated[dict, Config(mmengine.FUNCTIONS, given=("worker_id",))]
    num_batch_per_epoch: Count | None
    disable_subprocess_warning: bool
    persistent_workers: bool
    prefetch_factor: Count | None
    drop_last: bool
    pin_memory: bool
    timeout: NonNegative


LOADER = Annotated[dict, Config(DataLoader, refine=LoaderKeys, also=LoaderKeys)]


class MultiProcessing(TypedDict, total=False):
    """How processes start.

    Attributes:
        mp_start_method: start method of loader processes.
        opencv_num_threads: number of OpenCV's threads in each process.
    """

    mp_start_method: Literal["fork", "spawn", "forkserver"]
    opencv_num_threads: Whole


class Distributed(TypedDict, total=False):
    """How the processes of a run communicate.

    Attributes:
        backend: PyTorch's backend: "nccl" on GPUs, "gloo" on CPUs.
    """

    backend: Literal["nccl", "gloo"]


class Environment(TypedDict, total=False):
    """Settings of the processes.

    Attributes:
        cudnn_benchmark: whether cuDNN times its kernels and uses the fastest.
        mp_cfg: how loader processes start.
        dist_cfg: how the processes of a run communicate.
        resource_limit: number of files that a process may have open.
    """

    cudnn_benchmark: bool
    mp_cfg: Annotated[dict, Config(set_multi_processing, given=("distributed",), refine=MultiProcessing)]
    dist_cfg: Annotated[dict, Config(init_dist, given=("launcher",), refine=Distributed)]
    resource_limit: Count


class RandomnessRules(TypedDict, total=False):
    """The source of random numbers.

    Attributes:
        seed: seed of all random numbers of the run.
    """

    seed: Annotated[int, Range(0, LARGEST_SEED)] | None


RANDOMNESS = Annotated[dict, Config(set_random_seed, refine=RandomnessRules)]


class LoopRules(TypedDict, total=False):
    """Arguments of loops.

    Attributes:
        max_epochs: length of the run in epochs.
        max_iters: length of the run in iterations.
        val_interval: epochs or iterations between two validations.
        val_begin: epoch or iteration from which on validations run.
    """

    max_epochs: AutoCount
    max_iters: Count
    val_interval: Annotated[float, Range(1)]  # stock configs compute it by division, and MMEngine accepts the float
    val_begin: Whole


class LoopKeys(TypedDict, total=False):
    """Keys of a loop without ``type`` that the runner takes itself.

    Attributes:
        by_epoch: whether the run is counted in epochs or in iterations.
    """

    by_epoch: bool


PASSED = ("runner", "dataloader", "evaluator")


def train_loop_for(value: Mapping[str, Any], scope: str) -> Any:
    """The annotation of a ``train_cfg``: a loop by ``type``, or one of MMEngine's two by ``by_epoch``."""
    if "type" in value:
        counts = {"by_epoch": "the `type` of the loop decides whether it counts in epochs"}
        return Annotated[dict, Config(mmengine.LOOPS, given=PASSED, refine=LoopRules, moved=counts)]
    loop = EpochBasedTrainLoop if value.get("by_epoch", True) else IterBasedTrainLoop
    return Annotated[dict, Config(loop, given=PASSED, refine=LoopRules, also=LoopKeys)]


TRAIN_LOOP = Annotated[dict, Depends(train_loop_for)]
VAL_LOOP = Annotated[dict, Config(mmengine.LOOPS, "ValLoop", given=PASSED)]
TEST_LOOP = Annotated[dict, Config(mmengine.LOOPS, "TestLoop", given=PASSED)]


def evaluator_for(value: Mapping[str, Any], scope: str) -> Any:
    """The annotation of an evaluator: a metric, or, if it has ``metrics``, an evaluator of several metrics."""
    return Annotated[dict, Config(*((mmengine.EVALUATOR, "Evaluator") if "metrics" in value else (mmengine.METRICS,)))]


EVALUATOR = Annotated[dict, Depends(evaluator_for)]
