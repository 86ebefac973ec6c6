"""Activation checkpointing of blocks with batch norms."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """``block(x)``, whose activations are recomputed in the backward pass."""
    contexts = lambda: (nullcontext(), _running_statistics_kept(block))  # noqa: E731
    return checkpoint(block, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def _running_statistics_kept(block: nn.Module) -> Iterator[None]:
    """Run BatchNorms on copies of their buffers, so that the second forward pass does not count the batch again."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    kept = [norm._buffers for norm in norms]
    for norm in norms:
        norm._buffers = {name: value if value is None else value.clone() for name, value in norm._buffers.items()}
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept):
            norm._buffers = buffers
