"""DINO whose weights have the shapes of the official code and MMDetection 3.3, for any distribution of MMDetection."""

from mmdet.models.detectors import DINO
from mmdet.models.layers.transformer.utils import MLP
from torch import Tensor

from densessl.registry import MODELS


@MODELS.register_module()
class DINO33(DINO):
    """MMDetection's DINO with ``decoder.ref_point_head.layers.0`` of shape (C, 2C), as in the official code and in
    MMDetection 3.3.

    onedl-mmdetection 3.5.1 encodes each coordinate of a reference box by C features instead of C/2, so its layer has
    the shape (C, 4C), and neither loads the other's weights. This class is the same on both. To use it, set
    ``model = dict(type="densessl.DINO33")`` in a config that imports ``densessl.detectors``, or
    ``options={"type": "densessl.DINO33"}`` in a pretraining.
    """

    def _init_layers(self) -> None:
        super()._init_layers()
        self.decoder.ref_point_head = RefPointHead(self.embed_dims)


class RefPointHead(MLP):
    """Maps the sine encoding of a reference box to the position of a query. Keys are those of the MLP that it replaces.

    Args:
        dims: width C of a query.
    """

    def __init__(self, dims: int):
        super().__init__(2 * dims, dims, dims, 2)
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        """Encodings (N, Q, 2C), or (N, Q, 4C) of which every other frequency is used, to positions (N, Q, C).

        The frequencies of C/2 features are every other frequency of C features, bit for bit:
        T^(2k / (C/2)) = T^(2(2k) / C). Each frequency is a pair of a sine and a cosine.
        """
        if x.shape[-1] == 4 * self.dims:
            x = x.unflatten(-1, (-1, 4))[..., :2].flatten(-2)
        return super().forward(x)
