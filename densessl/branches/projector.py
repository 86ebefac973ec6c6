"""Projectors and predictors: one multi-layer perceptron for vectors and for the cells of maps."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from mmengine.dist import get_world_size
from torch import Tensor, nn

from densessl.branches.norm import NormConfig, build_norm
from densessl.branches.sync_bn import SyncBN
from densessl.constraints import Count, Share
from densessl.errors import SettingError
from densessl.registry import MODELS
from densessl.wording import choose

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": partial(nn.ReLU, inplace=True), "gelu": nn.GELU}

INITS: dict[str, Callable[[Tensor], Any] | None] = {
    "torch": None,
    "kaiming": partial(nn.init.kaiming_normal_, mode="fan_in", nonlinearity="relu"),
    "normal": partial(nn.init.normal_, std=0.01),
}


Init = Literal["torch", "kaiming", "normal"]


@MODELS.register_module()
class MLP(nn.Sequential):
    """Linear layers with norm, dropout and activation between them; on maps they are 1x1 convolutions.

    Each layer but the last is linear, norm, dropout, activation; the last is linear, followed by a norm if
    ``last_norm``. Keys: ``linear{i}.weight``, ``linear{i}.bias``, ``norm{i}.*``, with i from 0. The heads of the
    methods:

    - DenseCL, MoCo v2, RegionCL, DetCo: ``dims=(2048, 2048, 128), init="kaiming"`` (dense head: ``init="torch"``)
    - PixPro: ``kind="map", dims=(2048, 4096, 256), norm=dict(type="SyncBN")``; BYOL the same on vectors
    - CCOP: ``dims=(12544, 2048, 128), dropout=0.1, init="normal"``
    - SimSiam: ``dims=(2048, 2048, 2048, 2048), norm=..., bias=False, last_bias=False, last_norm=True,
      last_affine=False``; predictor ``dims=(2048, 512, 2048), norm=..., bias=False``
    - DenseSiam: ``kind="map", dims=(128, 128, 128, 27), norm=..., bias=False, last_norm=True, last_affine=False``
    - SCFS, after its bottleneck: ``dims=(512, 2048, 256), norm=..., last_norm=True``

    Args:
        kind: ``"vec"`` for (N, C), ``"map"`` for (N, C, H, W).
        dims: channels (in, hidden..., out).
        norm: config of the norm layers, see ``build_norm``; None for none.
        act: activation, ``"relu"`` or ``"gelu"``.
        bias: whether all layers but the last have a bias.
        last_bias: whether the last layer has a bias.
        last_norm: whether a norm follows the last layer.
        last_affine: whether that norm has weight and bias.
        dropout: dropout probability, applied before the activation.
        init: ``"torch"`` for PyTorch's default, ``"kaiming"`` for a normal distribution by fan-in for ReLU,
            ``"normal"`` for one of standard deviation 0.01; the latter two with zero biases.

    Raises:
        SettingError: a value is unknown, or the values do not fit together.
    """

    def __init__(
        self,
        kind: Literal["vec", "map"] = "vec",
        dims: Sequence[Count] = (2048, 2048, 128),
        norm: NormConfig | None = None,
        act: Literal["relu", "gelu"] = "relu",
        bias: bool = True,
        last_bias: bool = True,
        last_norm: bool = False,
        last_affine: bool = True,
        dropout: Share = 0.0,
        init: Init = "torch",
    ):
        super().__init__()
        on_maps = choose("MLP kind", kind, ("vec", "map")) == "map"
        activation = ACTIVATIONS[choose("MLP act", act, ACTIVATIONS)]
        initialise = INITS[choose("MLP init", init, INITS)]
        if len(dims) < 2 or not all(isinstance(dim, int) and dim > 0 for dim in dims):
            raise SettingError(f"MLP dims={dims}, expected at least two channel numbers (in, hidden..., out)")
        if last_norm and norm is None:
            raise SettingError("MLP last_norm=True, but norm is None: there is no layer to put last")
        last = len(dims) - 2
        for i, (inner, outer) in enumerate(pairwise(dims)):
            has_bias = last_bias if i == last else bias
            linear = nn.Conv2d(inner, outer, 1, bias=has_bias) if on_maps else nn.Linear(inner, outer, bias=has_bias)
            if initialise:
                initialise(linear.weight)
                if has_bias:
                    nn.init.zeros_(linear.bias)
            self.add_module(f"linear{i}", linear)
            if norm is not None and (i < last or last_norm):
                affine = {} if i < last or last_affine else {"affine": False}
                self.add_module(f"norm{i}", build_norm({**norm, **affine}, outer, dims=2 if on_maps else 1))
            if i < last:
                if dropout:
                    self.add_module(f"dropout{i}", nn.Dropout(dropout))
                self.add_module(f"act{i}", activation())
        self.out_channels = dims[-1]
        self.label = "MLP"  # label_heads replaces it by the path of this module

    def forward(self, inputs: Tensor) -> Tensor:
        """Vectors (N, C) or maps (N, C, H, W) to the same shape with ``dims[-1]`` channels.

        Raises:
            SettingError: a batch norm in training mode would see a single vector, which it would map to zero.
        """
        if self.training and inputs.numel() == inputs.shape[1]:
            for name, module in self.named_children():
                alone = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
                if alone and not (isinstance(module, SyncBN) and get_world_size() > 1):
                    raise SettingError(
                        f"{self.label}.{name} is a batch norm and would see a single vector: give a step at least two "
                        "images (train_dataloader.batch_size), or the head another norm"
                    )
        return super().forward(inputs)


def label_heads(model: nn.Module) -> None:
    """Give each :class:`MLP` in a model its path there, which its errors name."""
    for path, module in model.named_modules():
        if isinstance(module, MLP):
            module.label = path
