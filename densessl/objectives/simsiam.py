"""SimSiam (Chen & He, CVPR 2021, arXiv 2011.10566)."""

from torch import Tensor

from densessl.branches.projector import MLP
from densessl.constraints import Count
from densessl.data.batch import Batch
from densessl.figures import channel_spread
from densessl.losses import cosine_regression
from densessl.objectives.byol import VectorRegression
from densessl.registry import OBJECTIVES


@OBJECTIVES.register_module()
class SimSiam(VectorRegression):
    """Simple siamese representation learning (section 3, equations 1 to 4); its target is ``stop_gradient``.

    ``loss = -(mean cos(p_1, z_2) + mean cos(p_2, z_1)) / 2``, from 0 at random to -1. A run that reaches -1 within the
    first epoch has collapsed: ``channel_std``, the spread of the targets of one view, is then 0 instead of about 1
    (section 4.1, figure 2).

    The last layer of the official projector has a bias that is never trained. The norm after it cancels the bias, so it
    is left out here.

    Args:
        hidden, dim: hidden and output width of the projector: three layers with norm, the last without affine
            parameters.
        bottleneck: width of the predictor's hidden layer.
    """

    def __init__(self, hidden: Count = 2048, dim: Count = 2048, bottleneck: Count = 512, **kwargs):
        super().__init__(**kwargs)
        self.hidden = hidden
        self.dim = dim
        self.predictor = MLP(dims=(dim, bottleneck, dim), norm=self.norm, bias=False)

    def projectors(self, channels):
        dims = (channels(self.level), self.hidden, self.hidden, self.dim)
        projector = MLP(dims=dims, norm=self.norm, bias=False, last_bias=False, last_norm=True, last_affine=False)
        return {"projector": projector}

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        pairs = self.pairs(maps)
        return {
            "loss": -sum(cosine_regression(p, z) for p, z in pairs) / 2,
            "channel_std": channel_spread(pairs[0][1]),
        }
