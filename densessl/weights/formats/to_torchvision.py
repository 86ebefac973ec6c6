"""Find the torchvision ResNet that loads exported weights unchanged and computes the same."""

from collections.abc import Mapping

import torch
from torch import Tensor

from densessl.errors import ExportError
from densessl.weights.equality import require_same_network
from densessl.weights.fingerprint import Fingerprint


def check_torchvision(state: Mapping[str, Tensor], fingerprint: Fingerprint, library: str = "torchvision") -> str:
    """Return the name of the torchvision ResNet that, apart from its ``fc``, has exactly these tensors and computes the
    same.

    Args:
        state: Tensors of a bare ResNet.
        fingerprint: Its fingerprint.
        library: The library to name in errors: timm's ResNets have the names and tensors of torchvision's.

    Raises:
        ExportError: There is no such ResNet.
    """
    import torchvision  # the import takes a second, and only this format needs it

    if fingerprint.arch != "resnet" or fingerprint.depth is None:
        raise ExportError(f"{library} has no such network as this one: {fingerprint}")
    name = f"resnet{fingerprint.depth}"
    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
    del model.fc
    require_same_network(model, state, fingerprint, library, name)
    return name
