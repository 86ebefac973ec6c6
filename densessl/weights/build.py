"""The backbone of a file, built from what the file says about it."""

import torch
from torch import nn

from densessl.branches.backbone import build_backbone
from densessl.errors import ExportError
from densessl.weights.file_configs import building, checked
from densessl.weights.load import load_backbone
from densessl.weights.read import Source, open_checkpoint, part_configs


def backbone_from(source: Source, branch: str | None = None) -> nn.Module:
    """Build the backbone that a file describes, load its weights, and put it into evaluation mode.

    Args:
        source: a checkpoint or an exported file of densessl (``epoch_1.pth``, ``backbone.pth``), or a model pretrained
            here.
        branch: ``"online"``, ``"target"``, or None for the one that the method's paper transfers.

    Returns:
        A module that maps images (N, 3, H, W) to a tuple of maps (N, C, h, w), with the attributes ``out_channels`` and
        ``out_strides``, tuples with one entry for each map. The images must be normalised as in pretraining:
        ``read_backbone(source)[1]`` has ``mean`` and ``std``, for pixels in 0 to 255.

    Raises:
        ExportError: the file does not describe its network, like files of other libraries; or it has no such branch.
        UnsafeCheckpointError: building what it describes could run code, see :mod:`densessl.weights.file_configs`.
        CheckpointError: what it describes cannot be built.
        LoadError: the weights do not fit what it describes.
    """
    source = open_checkpoint(source)
    config = part_configs(source.meta).get("backbone")
    if config is None:
        raise ExportError(
            f"{source.name} does not describe its network, as checkpoints and exports of densessl do (mmdet, "
            "safetensors): build the network yourself, and load the file with load_backbone(network, file)"
        )
    config = checked(config, source.name, "backbone")
    with torch.random.fork_rng(devices=[]), building(source.name):
        backbone = build_backbone(config)
    load_backbone(backbone, source, branch=branch)
    return backbone.eval()
