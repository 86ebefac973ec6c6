"""The tiny encoder of the cases of MoCo, BYOL and SimSiam, and what adaptors of whole models share."""

import torch
from torch import Tensor, nn

from densessl.data.batch import Batch
from densessl.registry import MODELS


@MODELS.register_module(force=True)
class GoldenBody(nn.Module):
    """relu(body(x)) with a linear body; its vectors are maps of one cell."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.body = nn.Linear(channels, width)
        self.out_channels, self.out_strides = (width,), (1,)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.body(x.flatten(1)).relu()[:, :, None, None],)


def body(weight: Tensor) -> dict:
    """The config of a :class:`GoldenBody` with this weight."""
    return dict(backbone=dict(type="GoldenBody", channels=weight.shape[1], width=weight.shape[0]))


def batch_of(*views: Tensor) -> Batch:
    """A batch without geometry of views that are maps (N, C, H, W) or vectors (N, C)."""
    maps = [view if view.ndim == 4 else view[:, :, None, None] for view in views]
    return Batch(maps, [None] * len(views), [{} for _ in views], torch.zeros(len(views[0]), 2))


def queue_state(name: str, bank: Tensor, position: Tensor) -> dict[str, Tensor]:
    """State of the queue of objective ``name``, of an official one (C, K) and the place it writes to next."""
    return {
        f"objectives.{name}.queue.bank_keys": bank.mT,
        f"objectives.{name}.queue.state_keys": torch.stack([position, *[torch.zeros_like(position)] * 2]),
    }


def record(module: nn.Module) -> list[Tensor]:
    """The outputs of ``module``, to which calls to come will append; those with a gradient keep it."""
    outputs = []

    def append(module, inputs, output):
        if output.requires_grad:
            output.retain_grad()
        outputs.append(output)

    module.register_forward_hook(append)
    return outputs
