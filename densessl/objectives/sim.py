"""SIM, or SiameseIM (Tao et al., CVPR 2023, arXiv 2206.01204): a masked view predicts the features of another view.

The released code is followed, which has one dense loss. The global term of the preprint's first versions is an option
that no released code confirms. Predicting pixels, or the view itself, are the ablations on the way from MAE to SIM.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.branches.norm import choose
from densessl.branches.positions import grid_points
from densessl.branches.token_decoder import RelativeDecoder, TokenProjector
from densessl.geometry import axis_aligned, relative_cells
from densessl.insight.spread import between_image_cosine, channel_spread
from densessl.losses import correlation, full_precision, unigrad_terms, unit, valid_mean
from densessl.objectives.base import Forward, Objective
from densessl.registry import OBJECTIVES

SYNC = dict(type="SyncBN")


@OBJECTIVES.register_module()
class SIM(Objective):
    """The tokens of the first view that its mask leaves, through encoder, projector and decoder, predict every cell of
    the second view as the target's encoder and projector see it whole (paper, section 3).

        loss = (mean |p - t|^2 + negative_weight mean p C p^T) / D,   C = mean t^T t

    over all cells of all images, with targets t normed over their channels and C over all ranks.

    Args:
        patch_size: side in pixels of the backbone's patches.
        dim: D, of projector and decoder.
        heads, mlp_ratio, layer_scale: of their blocks.
        projector_depth, decoder_depth: numbers of blocks.
        projector_norm, decoder_norm: of their blocks; the official ones are batch norms over the tokens of all images.
        norm_predictions: norm predictions over their channels too.
        negative_weight: of the second term.
        global_weight: of the same loss on the mean over an image's cells; 0 leaves it out.
        predict: "features" of the target, or "pixels": each patch's, normed (MAE, section 3). The target branch is
            then not run and the loss has no second term.
        score: the cells that count: "all", or those "masked", where both views are one.
        masked: False shows the online branch the whole view, which then needs no mask.
        with_cp: recompute activations of projector and decoder in backward.
        views: (given, asked); twice the same to predict a view from itself.
    """

    def __init__(
        self,
        patch_size: int = 16,
        dim: int = 768,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        layer_scale: float | None = None,
        projector_depth: int = 2,
        decoder_depth: int = 4,
        projector_norm: dict[str, Any] = SYNC,
        decoder_norm: dict[str, Any] = SYNC,
        norm_predictions: bool = False,
        negative_weight: float = 0.02,
        global_weight: float = 0.0,
        predict: str = "features",
        score: str = "all",
        masked: bool = True,
        with_cp: bool = False,
        level: str = "tokens.0",
        **kwargs: Any,
    ):
        super().__init__(level=level, **kwargs)
        self.predict = choose(f"objectives.{self.name}.predict", predict, ("features", "pixels"))
        self.score = choose(f"objectives.{self.name}.score", score, ("all", "masked"))
        if score == "masked" and (self.views[0] != self.views[1] or not masked):
            raise ValueError(f"objectives.{self.name}.score is 'masked', expected masked=True and views=(v, v)")
        if dim % 4:
            raise ValueError(f"objectives.{self.name}.dim is {dim}, expected a multiple of 4")
        self.patch_size, self.dim = patch_size, dim
        self.projector_depth = projector_depth
        self.block = dict(heads=heads, mlp_ratio=mlp_ratio, layer_scale=layer_scale, with_cp=with_cp)
        self.projector_norm = projector_norm
        outputs = 3 * patch_size**2 if predict == "pixels" else dim
        self.decoder = RelativeDecoder(dim, decoder_depth, outputs, norm=decoder_norm, **self.block)
        self.norm_predictions = norm_predictions
        self.negative_weight, self.global_weight = negative_weight, global_weight
        self.keep = "keep" if masked else None
        self._checked = False

    def plan(self):
        given, asked = self.views
        online = Forward.to("online", (given,), self.level, keep=self.keep)
        return [online, Forward.to("target", (asked,), self.level)] if self.predict == "features" else [online]

    def projectors(self, channels):
        depth, norm = self.projector_depth, self.projector_norm
        return {"tokens": TokenProjector(channels(self.level), self.dim, depth, norm=norm, **self.block)}

    def forward(self, maps, batch, step):
        given, asked = self.views
        tokens = maps["online"].project("tokens", given, self.level)
        grids = [self._grid(batch.views[view]) for view in self.views]
        points, scale = self._relative(batch.geometry[given], batch.geometry[asked], grids)
        like = full_precision(tokens)[0]
        shown = grid_points(grids[0], like).expand(len(like), -1, -1)
        if self.keep:
            keep = batch.draws[given][self.keep].to(like.device)
            shown = shown.gather(1, keep[..., None].expand(-1, -1, 2))
        predicted = self.decoder(tokens, shown, points.to(like.dtype), scale.to(like.dtype))
        if self.predict == "pixels":
            target = normed_patches(batch.views[asked], self.patch_size)
        else:
            target = maps["target"].project("tokens", asked, self.level)
            target = target[:, -predicted.shape[1] :]  # without the class token
        predicted, target = full_precision(predicted, target.detach())
        with torch.autocast(predicted.device.type, enabled=False):
            if self.predict == "features":
                target = F.layer_norm(target, target.shape[2:])
            if self.norm_predictions:
                predicted = F.layer_norm(predicted, predicted.shape[2:])
        return self._figures(predicted, target, self._scored(batch, predicted))

    def _figures(self, predicted: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """The losses and what to watch, of predictions and targets (N, P, D), where valid (N, P)."""
        p, t, valid = predicted.flatten(0, 1), target.flatten(0, 1), valid.flatten()
        negative_weight = self.negative_weight if self.predict == "features" else 0.0
        terms = unigrad_terms(p, t, correlation(t, valid) if negative_weight else t.new_zeros(t.shape[1], t.shape[1]))
        positive, negative = (valid_mean(term, valid) / p.shape[1] for term in terms)
        figures = {"loss": positive + negative_weight * negative, "positive": positive, "negative": negative}
        if self.global_weight:
            pooled, whole = predicted.mean(1), target.mean(1)
            terms = unigrad_terms(pooled, whole, correlation(whole))
            far, near = (term.mean() / p.shape[1] for term in terms)
            figures["loss_global"] = self.global_weight * (far + negative_weight * near)
        with torch.no_grad():
            figures["cosine"] = valid_mean((unit(p) * unit(t)).sum(1), valid)
            figures["target_std"] = channel_spread(t)
            figures["between_images"] = between_image_cosine(target.mT[..., None])
        return figures

    def _scored(self, batch, predicted: Tensor) -> Tensor:
        """Which cells count, (N, P) bool."""
        counts = torch.ones(predicted.shape[:2], dtype=torch.bool, device=predicted.device)
        if self.score == "masked":
            counts.scatter_(1, batch.draws[self.views[0]][self.keep].to(counts.device), False)
        return counts

    def _grid(self, view: Tensor) -> tuple[int, int]:
        return view.shape[-2] // self.patch_size, view.shape[-1] // self.patch_size

    def _relative(self, given, asked, grids) -> tuple[Tensor, Tensor]:
        # Whether views are turned is a matter of the config: to look once is enough, and waits for the device once.
        if not self._checked and not axis_aligned(given, asked).all():
            raise ValueError(
                f"objectives.{self.name}: views {self.views} are turned against each other; relative positions know "
                "shifts, sizes and flips only: leave `rotate` out of these views"
            )
        self._checked = True
        return relative_cells(given, asked, *grids)


def normed_patches(images: Tensor, patch_size: int) -> Tensor:
    """Pixels of patches (N, P, 3 p^2), row-major, each patch with mean 0 and (unbiased) variance 1 (MAE, section 3)."""
    patches = F.pixel_unshuffle(images, patch_size).flatten(2).mT
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()
