"""DINO with the weights of the official code and of MMDetection 3.3, on any distribution of MMDetection."""

from mmdet.models.detectors import DINO
from mmdet.models.layers.transformer.utils import MLP
from torch import Tensor

from densessl.registry import MODELS


@MODELS.register_module()
class DINO33(DINO):
    """MMDetection's DINO, whose ``decoder.ref_point_head.layers.0`` is (C, 2C) as it was released; it is so in
    MMDetection 3.3 and in the official code.

    onedl-mmdetection 3.5.1 encodes each coordinate of a reference box by C features instead of C/2, and has (C, 4C)
    there. Weights of one do not fit the other; this class is the same on both. A config says
    ``model = dict(type="densessl.DINO33")`` and imports ``densessl.detectors``, a pretraining
    ``options={"type": "densessl.DINO33"}``.
    """

    def _init_layers(self) -> None:
        super()._init_layers()
        self.decoder.ref_point_head = RefPointHead(self.embed_dims)


class RefPointHead(MLP):
    """From the sine encoding of a reference box to a query's position, keys as of the MLP it stands for.

    Args:
        dims: C, width of a query.
    """

    def __init__(self, dims: int):
        super().__init__(2 * dims, dims, dims, 2)
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        """Encodings (N, Q, 2C) or (N, Q, 4C), of which every other frequency is taken, to positions (N, Q, C).

        The frequencies of C/2 features are every other one of C, to the bit: T^(2k / (C/2)) = T^(2(2k) / C). Each is a
        pair, a sine and a cosine.
        """
        if x.shape[-1] == 4 * self.dims:
            x = x.unflatten(-1, (-1, 4))[..., :2].flatten(-2)
        return super().forward(x)
