"""Which of torchvision's ResNets takes exported weights as they are, and computes the same."""

from collections.abc import Mapping

import torch
from torch import Tensor

from densessl.errors import ExportError
from densessl.weights.equality import require_same_network
from densessl.weights.fingerprint import Fingerprint


def check_torchvision(state: Mapping[str, Tensor], fingerprint: Fingerprint) -> str:
    """Name of torchvision's ResNet that takes every tensor, lacks only ``fc``, and computes the same.

    Args:
        state: Of a bare ResNet.
        fingerprint: What else is known about it.

    Raises:
        ExportError: There is none.
    """
    import torchvision  # takes a second, and only this format needs it

    if fingerprint.arch != "resnet" or fingerprint.depth is None:
        raise ExportError(f"torchvision has no such network as this one: {fingerprint.to_dict()}")
    name = f"resnet{fingerprint.depth}"
    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
    del model.fc
    require_same_network(model, state, fingerprint, "torchvision", name)
    return name
