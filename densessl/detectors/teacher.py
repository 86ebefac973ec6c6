"""The frozen network that embeds the patches of regions."""

import logging
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from densessl.branches import build_backbone
from densessl.errors import SettingError
from densessl.weights.load import load_backbone


class Teacher:
    """A backbone in evaluation mode and without gradients. It is not a submodule, so checkpoints do not contain it.

    Args:
        backbone: config of the backbone, whose first output is pooled over the patch. DETReg's released code uses
            ``layer2`` of a ResNet-50 (512 channels) for all detectors: ``out_indices=(1,)``.
        checkpoint: file with its weights; None for the weights that the detector's backbone starts from (``--init``).
        allow_random: run without weights, to test the setup; the log warns.
    """

    def __init__(self, backbone: dict[str, Any], checkpoint: str | None = None, allow_random: bool = False):
        self.network: nn.Module = build_backbone(backbone).requires_grad_(False)
        self.network.eval()
        self.channels = self.network.out_channels[0]
        self.checkpoint, self.allow_random, self.loaded = checkpoint, allow_random, False
        if checkpoint:
            self.load(checkpoint)

    def load(self, checkpoint: str, branch: str | None = None) -> str:
        """Load the backbone of a file, unless the teacher has weights already. Returns a line for the log."""
        if self.loaded:
            return f"the teacher keeps {self.checkpoint}"
        report = load_backbone(self.network, checkpoint, branch=branch)
        self.checkpoint, self.loaded = checkpoint, True
        return f"teacher: {report}"

    def ready(self) -> None:
        """Check that there are weights.

        Raises:
            SettingError: there are none, and ``allow_random`` is not set.
        """
        if self.loaded:
            return
        if not self.allow_random:
            raise SettingError(
                "the teacher has no weights, and no checkpoint holds them: start, and resume, from a trained backbone "
                "(densessl train --init FILE), or set model.pretext.allow_random_teacher=True to try the machinery "
                "with a random one"
            )
        print_log("The teacher has RANDOM weights (allow_random_teacher=True)", logger="current", level=logging.WARNING)
        self.loaded = True

    @torch.no_grad()
    def __call__(self, patches: Tensor) -> Tensor:
        """Mean features (M, C), in at least fp32, of normalised patches (M, 3, h, w). Raises as :meth:`ready` does."""
        self.ready()
        self.network.to(patches.device)
        maps = self.network(patches)[0]
        return maps.mean((2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))
