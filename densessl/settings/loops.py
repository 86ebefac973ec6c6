"""What MMEngine's runner takes for loaders, loops, hooks, evaluators and processes: its signatures say ``dict``."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict

import mmengine.registry as mmengine
from mmengine.dist import init_dist
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.utils import set_random_seed
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

from densessl.constraints import AutoCount, Config, Count, Depends, NonNegative, Range, Whole

LINKED = ("views", "view", "regions", "photometric")  # stated at the top of a config, used further down


class HookKeys(TypedDict, total=False):
    """What the runner takes before the hook sees the rest.

    Attributes:
        priority: a name such as "HIGH", or a number from 0, first, to 100, last.
    """

    priority: Annotated[int, Range(0, 100)] | str


class HookRules(TypedDict, total=False):
    """What hooks of MMEngine and its family take.

    Attributes:
        interval: iterations or epochs from one time that the hook acts to the next; -1 for never.
    """

    interval: Annotated[int, Range(1, also=(-1,))]


HOOK = Annotated[dict, Config(mmengine.HOOKS, also=HookKeys, refine=HookRules, closed=(CheckpointHook,), trial=True)]


class LoaderKeys(TypedDict, total=False):
    """What the runner takes of a loader, and what PyTorch's says of itself more loosely.

    Attributes:
        batch_size: images that a process takes an iteration.
        largest_batch: most images of a batch size that is "auto".
        num_workers: processes that load; "auto" is the cores of this machine over its processes.
        dataset: what is loaded.
        sampler: in which order.
        batch_sampler: how the order is cut into batches.
        collate_fn: what makes a batch of samples.
        worker_init_fn: what each loader process runs first.
        num_batch_per_epoch: batches that an epoch has; by default as many as the data set has.
        disable_subprocess_warning: whether loader processes keep quiet.
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
        mp_start_method: of loader processes.
        opencv_num_threads: threads of OpenCV in each.
    """

    mp_start_method: Literal["fork", "spawn", "forkserver"]
    opencv_num_threads: Whole


class Environment(TypedDict, total=False):
    """Of the processes.

    Attributes:
        cudnn_benchmark: whether cuDNN times its kernels and takes the fastest.
        mp_cfg: how loader processes start.
        dist_cfg: how the processes of a run talk to each other.
        resource_limit: files that a process may have open.
    """

    cudnn_benchmark: bool
    mp_cfg: Annotated[dict, Config(set_multi_processing, given=("distributed",), refine=MultiProcessing)]
    dist_cfg: Annotated[dict, Config(init_dist, given=("launcher",))]
    resource_limit: Count


class RandomnessRules(TypedDict, total=False):
    """Where random numbers come from.

    Attributes:
        seed: of all random numbers of a run.
    """

    seed: Whole | None


RANDOMNESS = Annotated[dict, Config(set_random_seed, refine=RandomnessRules)]


class LoopRules(TypedDict, total=False):
    """What loops take.

    Attributes:
        max_epochs: length of the run.
        max_iters: length of the run in iterations.
        val_interval: epochs, or iterations, from one validation to the next.
        val_begin: the epoch, or iteration, from which on there are validations.
    """

    max_epochs: AutoCount
    max_iters: Count
    val_interval: Annotated[float, Range(1)]  # stock configs divide, and MMEngine takes what comes out
    val_begin: Whole


class LoopKeys(TypedDict, total=False):
    """What the runner takes of a loop without ``type``.

    Attributes:
        by_epoch: whether the run is counted in epochs or in iterations.
    """

    by_epoch: bool


PASSED = ("runner", "dataloader", "evaluator")


def train_loop_for(value: Mapping[str, Any], scope: str) -> Any:
    """The annotation of a ``train_cfg``: a loop by ``type``, or one of MMEngine's two by ``by_epoch``."""
    if "type" in value:
        counts = {"by_epoch": "a loop with a `type` counts as its class does"}
        return Annotated[dict, Config(mmengine.LOOPS, given=PASSED, refine=LoopRules, moved=counts)]
    loop = EpochBasedTrainLoop if value.get("by_epoch", True) else IterBasedTrainLoop
    return Annotated[dict, Config(loop, given=PASSED, refine=LoopRules, also=LoopKeys)]


TRAIN_LOOP = Annotated[dict, Depends(train_loop_for)]
VAL_LOOP = Annotated[dict, Config(mmengine.LOOPS, "ValLoop", given=PASSED)]
TEST_LOOP = Annotated[dict, Config(mmengine.LOOPS, "TestLoop", given=PASSED)]


def evaluator_for(value: Mapping[str, Any], scope: str) -> Any:
    """The annotation of an evaluator: a metric, or with ``metrics`` an evaluator of several."""
    return Annotated[dict, Config(*((mmengine.EVALUATOR, "Evaluator") if "metrics" in value else (mmengine.METRICS,)))]


EVALUATOR = Annotated[dict, Depends(evaluator_for)]
