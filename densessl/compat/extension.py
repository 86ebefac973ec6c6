"""The module ``mmcv._ext`` where mmcv has no compiled extension.

Executed under that name by the finder of ``densessl.compat``. It has every operator MMDetection's detectors call; any
other name exists too, because ``mmcv.ops`` asks for them all when imported, and raises when it is called.
"""

from collections.abc import Callable
from typing import NoReturn

import torch

from densessl.compat.deform_attn import ms_deform_attn_backward, ms_deform_attn_forward
from densessl.compat.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from densessl.compat.distributions import check_distributions
from densessl.compat.focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from densessl.compat.nms import nms, softnms
from densessl.compat.roi import roi_align_backward, roi_align_forward, roi_pool_backward, roi_pool_forward

__all__ = [
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "get_compiler_version",
    "get_compiling_cuda_version",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
    "ms_deform_attn_backward",
    "ms_deform_attn_forward",
    "nms",
    "roi_align_backward",
    "roi_align_forward",
    "roi_pool_backward",
    "roi_pool_forward",
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
    "softnms",
]

check_distributions()


def get_compiler_version() -> str:
    """What MMEngine's environment report prints for the compiler of the operators."""
    return "none (densessl.compat)"


def get_compiling_cuda_version() -> str:
    """What MMEngine's environment report prints for the CUDA version of the operators."""
    return "none (densessl.compat)"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """Any operator that is not here: importable, and an error once called."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing(*args, **kwargs) -> NoReturn:
        raise NotImplementedError(
            f"The mmcv operator '{name}' is not among those densessl.compat has, and mmcv's compiled extension is not "
            f"installed. Install an mmcv wheel compiled for torch {torch.__version__} (CUDA "
            f"{torch.version.cuda or 'none'}), or build mmcv from its source with MMCV_WITH_OPS=1; a compiled "
            "extension takes precedence over densessl.compat by itself."
        )

    missing.__name__ = missing.__qualname__ = name
    return missing
