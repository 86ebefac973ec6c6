"""Weights into a model, with a line that says what fitted."""

from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from densessl.errors import LoadError


def bare_model(model: nn.Module) -> nn.Module:
    """The model without its distributed wrapper."""
    return model.module if is_model_wrapper(model) else model


def load_into(model: nn.Module, weights: dict[str, Tensor], strict: bool = False) -> str:
    """Load the tensors of ``weights`` that fit ``model`` by name and shape.

    Args:
        strict: require every tensor of both sides to fit.

    Returns:
        One line: how many tensors of the model were loaded, and which names are missing, unexpected or of another
        shape.

    Raises:
        LoadError: nothing fits, or, if ``strict``, not everything does.
    """
    own = model.state_dict()
    shapes = {
        name: f"{name} {tuple(tensor.shape)} for {tuple(own[name].shape)}"
        for name, tensor in weights.items()
        if name in own and own[name].shape != tensor.shape
    }
    fitting = type(weights)((name, tensor) for name, tensor in weights.items() if name not in shapes)
    if hasattr(weights, "_metadata"):  # versions, by which modules upgrade the names of old checkpoints
        fitting._metadata = weights._metadata
    result = model.load_state_dict(fitting, strict=False)
    missing = [name for name in result.missing_keys if name not in shapes]
    # Old checkpoints lack the step counters of batch norm, and PyTorch neither misses nor needs them.
    total = sum(name in weights or not name.endswith("num_batches_tracked") for name in own)
    matched = total - len(missing) - len(shapes)
    report = f"{matched} of {total} tensors loaded"
    for title, names in (
        ("missing", missing),
        ("unexpected", result.unexpected_keys),
        ("of another shape", list(shapes.values())),
    ):
        if names:
            report += f"; {len(names)} {title} ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
    if matched == 0 or (strict and (missing or shapes or result.unexpected_keys)):
        raise LoadError(f"the weights do not fit {type(model).__name__}: {report}")
    return report
