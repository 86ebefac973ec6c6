"""Load weights into a whole model, with a report."""

from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from densessl.errors import LoadError
from densessl.weights.load_report import LoadReport, mismatches


def bare_model(model: nn.Module) -> nn.Module:
    """Return the model without its distributed wrapper."""
    return model.module if is_model_wrapper(model) else model


def load_into(
    model: nn.Module, weights: dict[str, Tensor], strict: bool = False, source: str = "weights"
) -> LoadReport:
    """Load the tensors of ``weights`` that fit ``model`` by name and shape.

    Args:
        strict: require every tensor of both sides to fit.
        source: where the weights come from, for the report.

    Returns:
        The load report; its part is ``"model"``.

    Raises:
        LoadError: nothing fits, or, if ``strict``, not everything does. The model is unchanged.
    """
    own = model.state_dict()
    mismatched = mismatches(own, weights)
    fitting = type(weights)((name, tensor) for name, tensor in weights.items() if name not in mismatched)
    if hasattr(weights, "_metadata"):  # module versions, which PyTorch uses to upgrade names of old checkpoints
        fitting._metadata = weights._metadata
    before = {name: tensor.clone() for name, tensor in own.items()} if strict else {}
    result = model.load_state_dict(fitting, strict=False)
    missing = [name for name in result.missing_keys if name not in mismatched]
    # Old checkpoints lack the batch counters of batch norms, which PyTorch does not report as missing.
    expected = sum(name in weights or not name.endswith("num_batches_tracked") for name in own)
    report = LoadReport(
        source,
        "model",
        expected,
        expected - len(missing) - len(mismatched),
        missing=missing,
        mismatched=list(mismatched.values()),
        unexpected=result.unexpected_keys,
        applied=True,
    )
    if report.loaded == 0 or (strict and (missing or mismatched or report.unexpected)):
        model.load_state_dict(before, strict=False)
        report.applied = False
        raise LoadError(f"the weights do not fit {type(model).__name__}: {report}", report)
    return report
