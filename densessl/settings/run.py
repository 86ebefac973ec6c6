"""The schema of a config's top level: what MMEngine's runner and this library read there."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

import mmengine.registry as mmengine
from mmengine.runner import Runner

from densessl.augment.photometric import OpConfig
from densessl.constraints import Config, Count, Name
from densessl.data.dataset import RegionsConfig
from densessl.data.views import ViewConfig
from densessl.data.whole import WholeConfig
from densessl.run_settings import LAUNCHERS
from densessl.settings.loops import (
    EVALUATOR,
    HOOK,
    LOADER,
    RANDOMNESS,
    TEST_LOOP,
    TRAIN_LOOP,
    VAL_LOOP,
    Environment,
)
from densessl.settings.optimisers import OPTIM_WRAPPER, SCHEDULERS
from densessl.settings.schema import Schema, schema_of_dict
from densessl.signatures import arguments_of

WRAPPERS = Config(mmengine.MODEL_WRAPPERS, "MMDistributedDataParallel", filled=("module",))


class Imports(TypedDict, total=False):
    """Modules whose classes a config names.

    Attributes:
        imports: modules to import first.
        allow_failed_imports: whether the run continues without modules that cannot be imported.
    """

    imports: Sequence[str] | str
    allow_failed_imports: bool


class AutoScale(TypedDict, total=False):
    """MMEngine's scaling of learning rates.

    Attributes:
        enable: whether the learning rate is scaled with the batch size.
        base_batch_size: images per step for which the learning rate is written.
    """

    enable: bool
    base_batch_size: Count


class Run(TypedDict, total=False):
    """The top-level entries of a config.

    Attributes:
        model: the model to train.
        views: the views of an image; data set and preprocessor get them from here.
        view: how whole images are made, for the pretraining of a detector.
        photometric: operations on patches of regions, for the pretraining of a detector.
        regions: source of the regions of the images.
        demo: changes for a short trial run, values by key path.
        default_scope: the package whose registered classes need no prefix.
        runner_type: class of the runner.
        custom_imports: modules to import first.
        train_dataloader: training data.
        val_dataloader: validation data.
        test_dataloader: test data.
        train_cfg: length of the run.
        val_cfg: settings of validation.
        test_cfg: settings of testing.
        val_evaluator: metrics of validation.
        test_evaluator: metrics of testing.
        optim_wrapper: optimiser, precision, accumulation, clipping.
        param_scheduler: MMEngine's schedules of learning rates and momenta.
        auto_scale_lr: MMEngine's scaling of learning rates.
        default_hooks: hooks by name; None removes one of MMEngine's.
        custom_hooks: further hooks.
        env_cfg: settings of the processes.
        randomness: seed and determinism.
        visualizer: where figures are written.
        log_processor: how figures are averaged and named.
        log_level: lowest level of messages that are logged.
        model_wrapper_cfg: wrapper of the model in runs of several processes.
        data_preprocessor: preprocessor of a model that has none of its own.
        work_dir: folder of logs and checkpoints.
        load_from: file of weights to start from; with `resume`, the checkpoint to continue from.
        resume: whether to continue from a checkpoint.
        launcher: program that starts the processes.
        experiment_name: name of the run in its logs.
        compile: arguments of torch.compile for the branches, or backbone and neck, of the model; True for its defaults.
        sync_bn: library whose synchronised batch norm replaces all batch norms.
        find_unused_parameters: argument of the model wrapper of a config that has no `model_wrapper_cfg`.
        activation_checkpointing: modules whose activations are recomputed in the backward pass.
        efficient_conv_bn_eval: modules whose frozen batch norms are folded into convolutions.
    """

    model: Annotated[dict, Config(mmengine.MODELS)]
    views: Sequence[ViewConfig]
    view: WholeConfig
    photometric: Sequence[OpConfig]
    regions: RegionsConfig | None
    demo: Mapping[str, Any]
    default_scope: str | None
    runner_type: Annotated[str, Name(mmengine.RUNNERS)]
    custom_imports: Imports | None
    train_dataloader: LOADER | None
    val_dataloader: LOADER | Sequence[LOADER] | None
    test_dataloader: LOADER | Sequence[LOADER] | None
    train_cfg: TRAIN_LOOP | None
    val_cfg: VAL_LOOP | None
    test_cfg: TEST_LOOP | None
    val_evaluator: EVALUATOR | Sequence[EVALUATOR] | None
    test_evaluator: EVALUATOR | Sequence[EVALUATOR] | None
    optim_wrapper: OPTIM_WRAPPER | None
    param_scheduler: SCHEDULERS | None
    auto_scale_lr: AutoScale | None
    default_hooks: Mapping[str, HOOK | None] | None
    custom_hooks: Sequence[HOOK] | None
    env_cfg: Environment
    randomness: RANDOMNESS
    visualizer: Annotated[dict, Config(mmengine.VISUALIZERS)] | None
    log_processor: Annotated[dict, Config(mmengine.LOG_PROCESSORS, "LogProcessor")] | None
    log_level: Literal["DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "FATAL", "NOTSET"] | int
    model_wrapper_cfg: Annotated[dict, WRAPPERS] | None
    data_preprocessor: Annotated[dict, Config(mmengine.MODELS)] | None
    work_dir: str
    load_from: str | None
    resume: Literal["auto"] | bool
    launcher: Literal[LAUNCHERS]
    experiment_name: str | None
    compile: Mapping[str, Any] | bool | None
    sync_bn: Literal["torch", "mmcv"] | None
    find_unused_parameters: bool
    activation_checkpointing: Sequence[str] | str | None
    efficient_conv_bn_eval: Sequence[str] | str | None


def top_level() -> Schema:
    """The schema of a config's top level."""
    return schema_of_dict(Run)


def runner_arguments() -> set[str]:
    """The top-level entries that MMEngine's runner reads. Its argument ``cfg`` is the config itself."""
    return set(arguments_of(Runner) or {}) - {"cfg"}
