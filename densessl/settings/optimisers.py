"""Schemas of ``optim_wrapper`` and ``param_scheduler``, for which MMEngine's signatures say ``dict``."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import mmengine.registry as mmengine

from densessl.constraints import Config, Count, Depends, NonNegative, Positive, Share
from densessl.settings.lookup import UnknownType, find
from densessl.settings.schema import is_ours
from densessl.signatures import arguments_of

CONSTRUCTOR = "DefaultOptimWrapperConstructor"  # where a config names none


class OptimizerRules(TypedDict, total=False):
    """Ranges that PyTorch's optimisers do not check, or only when they are built.

    Attributes:
        lr: learning rate.
    """

    lr: NonNegative
    momentum: Share
    dampening: Share
    weight_decay: NonNegative
    betas: tuple[Share, Share]
    alpha: Share
    eps: NonNegative | None


OPTIMIZER = Annotated[dict, Config(mmengine.OPTIMIZERS, given=("params",), refine=OptimizerRules)]


class Clipping(TypedDict, total=False):
    """Arguments of PyTorch's functions that clip gradients.

    Attributes:
        type: "norm" scales down the gradient of all parameters together, "value" clips each entry.
        max_norm: largest norm of the gradient.
        norm_type: order p of the norm.
        error_if_nonfinite: whether a gradient with NaN or infinite entries ends the run.
        foreach: whether PyTorch processes all tensors at once.
        clip_value: largest absolute value of an entry.
    """

    type: Literal["norm", "value"]
    max_norm: Positive
    norm_type: Positive
    error_if_nonfinite: bool
    foreach: bool | None
    clip_value: Positive


class WrapperRules(TypedDict, total=False):
    """Arguments of every optimiser wrapper.

    Attributes:
        accumulative_counts: iterations accumulated into one step.
        clip_grad: how gradients are clipped.
    """

    accumulative_counts: Count
    clip_grad: Clipping | None


class Factors(TypedDict, total=False):
    """Factors for some of the parameters.

    Attributes:
        lr_mult: factor of the learning rate.
        decay_mult: factor of the weight decay.
    """

    lr_mult: NonNegative
    decay_mult: NonNegative


class Paramwise(TypedDict, total=False):
    """Factors of MMEngine's constructor.

    Attributes:
        custom_keys: factors for the parameters whose names contain the key.
        bias_lr_mult: factor of the learning rate of biases.
        bias_decay_mult: factor of the weight decay of biases.
        norm_decay_mult: factor of the weight decay of norm layers.
        flat_decay_mult: factor of the weight decay of parameters of one dimension.
        dwconv_decay_mult: factor of the weight decay of depthwise convolutions.
        dcn_offset_lr_mult: factor of the learning rate of the offsets of deformable convolutions.
        bypass_duplicate: whether duplicate parameters are skipped.
    """

    custom_keys: Mapping[str, Factors]
    bias_lr_mult: NonNegative
    bias_decay_mult: NonNegative
    norm_decay_mult: NonNegative
    flat_decay_mult: NonNegative
    dwconv_decay_mult: NonNegative
    dcn_offset_lr_mult: NonNegative
    bypass_duplicate: bool


class WrapperKeys(TypedDict):
    """Keys of a wrapper's config that the constructor takes itself.

    Attributes:
        optimizer: the optimiser.
        constructor: class that groups the parameters and builds optimiser and wrapper.
        paramwise_cfg: settings of the constructor.
    """

    optimizer: OPTIMIZER
    constructor: NotRequired[str]
    paramwise_cfg: NotRequired[Any]


def wrapper_for(value: Mapping[str, Any], scope: str) -> Any:
    """The annotation of an ``optim_wrapper``, with the keys of its constructor and the arguments of the wrapper.

    Raises:
        UnknownType: there is no such constructor.
    """
    several = value and all(isinstance(entry, Mapping) and "type" in entry for entry in value.values())
    if several and "optimizer" not in value:
        return Mapping[str, Any]  # wrappers of several models, whose keys only their own constructor knows
    name = value.get("constructor", CONSTRUCTOR)
    try:
        constructor = find(mmengine.OPTIM_WRAPPER_CONSTRUCTORS, name, scope)
    except UnknownType as error:
        error.key = "constructor"
        raise
    keys = TypedDict("Keys", {**WrapperKeys.__annotations__, "paramwise_cfg": _paramwise(name, constructor)})
    keys.__doc__ = WrapperKeys.__doc__
    default = getattr(constructor, "WRAPPER", "OptimWrapper")
    wrapper = Config(mmengine.OPTIM_WRAPPERS, default, given=("optimizer",), refine=WrapperRules, also=keys)
    return Annotated[dict, wrapper]


def _paramwise(name: str, constructor: Any) -> Any:
    """The annotation of a constructor's ``paramwise_cfg``, as far as it is known."""
    if name == CONSTRUCTOR:
        return NotRequired[Paramwise | None]
    if not is_ours(constructor):
        return NotRequired[Any]
    return NotRequired[(arguments_of(constructor) or {})["paramwise_cfg"].annotation]


class SchedulerRules(TypedDict, total=False):
    """Arguments of most of MMEngine's schedulers.

    Attributes:
        by_epoch: whether the scheduler counts in epochs or in iterations.
        begin: epoch or iteration at which it begins.
        end: epoch or iteration at which it ends.
    """

    by_epoch: bool
    begin: NonNegative
    end: NonNegative


class SchedulerKeys(TypedDict, total=False):
    """Key that the builder of schedulers takes itself.

    Attributes:
        convert_to_iter_based: whether a scheduler that counts in epochs acts in every iteration.
    """

    convert_to_iter_based: bool


SCHEDULER = Annotated[
    dict,
    Config(mmengine.PARAM_SCHEDULERS, filled=("optimizer", "epoch_length"), refine=SchedulerRules, also=SchedulerKeys),
]
SCHEDULERS = SCHEDULER | Sequence[SCHEDULER]
OPTIM_WRAPPER = Annotated[dict, Depends(wrapper_for)]
