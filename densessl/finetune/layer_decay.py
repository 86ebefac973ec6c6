"""Layer-wise learning rate decay for fine-tuning, as in BEiT, MAE and ViTDet."""

from typing import Annotated, TypedDict

from mmengine.optim import OptimWrapper
from torch import nn

from densessl.constraints import Range
from densessl.engine.lars import DenseOptimWrapperConstructor
from densessl.errors import SettingError
from densessl.registry import OPTIM_WRAPPER_CONSTRUCTORS
from densessl.weights.state import bare_model


class LayerDecay(TypedDict, total=False):
    """Settings of :class:`LayerDecayConstructor`.

    Attributes:
        decay_rate: factor between the learning rates of a layer and the layer after it.
    """

    decay_rate: Annotated[float, Range(0, 1, above=True)]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(DenseOptimWrapperConstructor):
    """Gives parameters of a detector's backbone the learning rate ``lr * decay_rate ** (L + 1 - layer)``, where L is
    its number of blocks: patch and position embedding are layer 0, block i is layer i + 1. All other parameters have
    ``lr``.

    Parameters of one dimension (biases, norms) and ``pos_embed`` have no weight decay.

    Args:
        optim_wrapper_cfg: ``optimizer`` (with ``lr``), and ``type`` and arguments of the wrapper, such as
            ``"AmpOptimWrapper"``.
        paramwise_cfg: ``dict(decay_rate=0.7)``, as for ViTDet-B; 1, the default, gives all layers one rate.

    Raises:
        SettingError: ``paramwise_cfg`` has an unknown key, or a rate outside (0, 1]; when called, the model's backbone
            has no ``layer_of``.
    """

    KEYS = ("decay_rate",)

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: LayerDecay | None = None):
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        self.decay_rate = self.paramwise_cfg.get("decay_rate", 1.0)
        if not 0 < self.decay_rate <= 1:
            raise SettingError(f"paramwise_cfg.decay_rate is {self.decay_rate}, expected a number in (0, 1]")

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = bare_model(model)
        backbone = getattr(model, "backbone", None)
        if not hasattr(backbone, "layer_of"):
            raise SettingError(
                f"LayerDecayConstructor: found a backbone of the type {type(backbone).__name__}, expected one that "
                "tells the layer of a parameter (layer_of), such as densessl.ViTDet"
            )
        after = len(backbone.blocks) + 1
        named = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
        self.paramwise_cfg = dict(
            lr_mult={f"backbone.{name}": self.decay_rate ** (after - backbone.layer_of(name)) for name in named},
            no_decay=["backbone.pos_embed"] if "pos_embed" in named else [],
        )
        return super().__call__(model)
