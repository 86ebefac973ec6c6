"""SIM, or SiameseIM (Tao et al., CVPR 2023, arXiv 2206.01204): a masked view predicts the features of another view.

This follows the released code, which has one dense loss. The global term of the first versions of the preprint is an
option that no released code confirms. Predicting pixels, or the same view, are the ablations between MAE and SIM.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.branches.norm import NormConfig
from densessl.branches.positions import grid_points
from densessl.branches.token_decoder import RelativeDecoder, TokenProjector
from densessl.constraints import Count, NonNegative, Positive, Whole
from densessl.data.views import ViewSpec
from densessl.errors import SettingError
from densessl.figures import between_image_cosine, channel_spread
from densessl.geometry import axis_aligned, relative_cells
from densessl.losses import correlation, full_precision, unigrad_terms, valid_mean
from densessl.objectives.base import Forward, Objective
from densessl.registry import OBJECTIVES
from densessl.wording import choose

SYNC = dict(type="SyncBN")


@OBJECTIVES.register_module()
class SIM(Objective):
    """The visible tokens of the masked first view pass encoder, projector and decoder, and predict every cell of the
    second view, as the target's encoder and projector compute it from the whole view (paper, section 3).

        loss = (mean |p - t|^2 + negative_weight mean p C p^T) / D,   C = mean t^T t

    over all cells of all images. Targets t are normalised over their channels; C is computed over all ranks.

    Logged: ``positive`` and ``negative``, the two means divided by D; ``positive_cosine`` of predictions and targets;
    ``target_std``, 1 where targets point in all directions and 0 where all are equal; ``between_images``, the cosine of
    targets of different images. A collapse drives the last two to 0 and 1.

    Args:
        patch_size: side of the backbone's patches in pixels.
        dim: width D of projector and decoder.
        heads, mlp_ratio, layer_scale: settings of their blocks.
        projector_depth, decoder_depth: number of their blocks.
        projector_norm, decoder_norm: norm configs of their blocks; officially batch norms over the tokens of all
            images.
        norm_predictions: normalise predictions over their channels too.
        negative_weight: weight of the second term.
        global_weight: weight of the same loss on the mean over the cells of an image; 0 leaves it out.
        predict: "features" of the target, or "pixels", normalised for each patch (MAE, section 3). With "pixels" the
            target branch does not run and the loss has no second term.
        score: the cells that count: "all", or only those "masked", where both views are the same.
        masked: False shows the online branch the whole view, which then needs no mask.
        with_cp: recompute activations of projector and decoder in the backward pass.
        level: level of the sequence, "tokens.i".
        views: (given, asked); the same view twice to predict a view from itself.

    Raises:
        SettingError: settings that exclude each other, or a value out of range.
    """

    two_views = True

    def __init__(
        self,
        patch_size: Count = 16,
        dim: Count = 768,
        heads: Count = 16,
        mlp_ratio: Positive = 4.0,
        layer_scale: NonNegative | None = None,
        projector_depth: Whole = 2,
        decoder_depth: Whole = 4,
        projector_norm: NormConfig = SYNC,
        decoder_norm: NormConfig = SYNC,
        norm_predictions: bool = False,
        negative_weight: NonNegative = 0.02,
        global_weight: NonNegative = 0.0,
        predict: Literal["features", "pixels"] = "features",
        score: Literal["all", "masked"] = "all",
        masked: bool = True,
        with_cp: bool = False,
        level: str = "tokens.0",
        **kwargs: Any,
    ):
        super().__init__(level=level, **kwargs)
        self.predict = choose(f"objectives.{self.name}.predict", predict, ("features", "pixels"))
        self.score = choose(f"objectives.{self.name}.score", score, ("all", "masked"))
        if score == "masked" and (self.views[0] != self.views[1] or not masked):
            raise SettingError(f"objectives.{self.name}.score is 'masked', expected masked=True and views=(v, v)")
        if dim % 4:
            raise SettingError(f"objectives.{self.name}.dim is {dim}, expected a multiple of 4")
        self.patch_size, self.dim = patch_size, dim
        block = dict(heads=heads, mlp_ratio=mlp_ratio, layer_scale=layer_scale, with_cp=with_cp)
        self.projector = dict(depth=projector_depth, norm=projector_norm, **block)
        outputs = 3 * patch_size**2 if predict == "pixels" else dim
        self.decoder = RelativeDecoder(dim, decoder_depth, outputs, norm=decoder_norm, **block)
        self.negative_weight = negative_weight if predict == "features" else 0.0
        self.norm_predictions, self.global_weight = norm_predictions, global_weight
        self.keep = "keep" if masked else None
        self._checked = False

    def unmet(self, views: Sequence[ViewSpec], regions: Mapping[str, Any] | None) -> list[str]:
        turned = [view for view in self.views if any(views[view].rotate)]
        reasons = [f"view {view} is rotated; expected shifts, sizes and flips only" for view in turned]
        for view in self.views:
            if any(side % self.patch_size for side in views[view].width_height):
                size = "x".join(map(str, views[view].width_height))
                reasons.append(f"patch_size is {self.patch_size}, expected a divisor of view {view}'s {size} pixels")
        return list(dict.fromkeys(reasons))

    def plan(self):
        given, asked = self.views
        online = Forward("online", (given,), (self.level,), self.keep)
        return [online, Forward("target", (asked,), (self.level,))] if self.predict == "features" else [online]

    def projectors(self, channels):
        return {"tokens": TokenProjector(channels(self.level), self.dim, **self.projector)}

    def forward(self, maps, batch, step):
        given, asked = self.views
        tokens = maps["online"].project("tokens", given, self.level)
        keep = batch.draws[given][self.keep].to(tokens.device, non_blocking=True) if self.keep else None
        predicted = self.decoder(tokens, *self._places(batch, keep))
        if self.predict == "pixels":
            target = normed_patches(batch.views[asked], self.patch_size)
        else:
            target = self._cells(maps["target"].project("tokens", asked, self.level), predicted.shape[1])
        valid = torch.ones(predicted.shape[:2], dtype=torch.bool, device=tokens.device)
        return self.compare(predicted, target, valid.scatter(1, keep, False) if self.score == "masked" else valid)

    def compare(self, predicted: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Losses and figures.

        Args:
            predicted: (N, P, D).
            target: (N, P, D), not normalised; gets no gradient.
            valid: (N, P) bool, the cells that count.
        """
        predicted, target = full_precision(predicted, target.detach())
        with torch.autocast(predicted.device.type, enabled=False):
            if self.norm_predictions:
                predicted = F.layer_norm(predicted, predicted.shape[2:])
            if self.predict == "features":
                target = F.layer_norm(target, target.shape[2:])
        p, t, valid = predicted.flatten(0, 1), target.flatten(0, 1), valid.flatten()
        figures = self._terms(p, t, valid)
        if self.global_weight:
            images = valid.new_ones(len(predicted))
            figures["loss_global"] = self.global_weight * self._terms(predicted.mean(1), target.mean(1), images)["loss"]
        with torch.no_grad():
            figures["positive_cosine"] = valid_mean(F.cosine_similarity(p, t), valid, "local")
            if self.predict == "features":
                figures["target_std"] = channel_spread(t)
                figures["between_images"] = between_image_cosine(target.mT[..., None])
        return figures

    def _terms(self, p: Tensor, t: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """The loss of rows (M, D), and its two terms: means over the valid rows (M,)."""
        matrix = correlation(t, valid if self.score == "masked" else None) if self.negative_weight else None
        positive, negative = (valid_mean(term, valid) / p.shape[1] for term in unigrad_terms(p, t, matrix))
        terms = {"positive": positive} if matrix is None else {"positive": positive, "negative": negative}
        return {"loss": positive + self.negative_weight * negative, **terms}

    def _cells(self, tokens: Tensor, cells: int) -> Tensor:
        """Tokens (N, [1 +] P, D) without the class token."""
        if tokens.shape[1] - cells not in (0, 1):
            raise SettingError(
                f"objectives.{self.name}.patch_size is {self.patch_size}, which makes {cells} cells of view "
                f"{self.views[1]}; the backbone gives {tokens.shape[1]} tokens, expected as many or one more"
            )
        return tokens[:, -cells:]

    def _places(self, batch, keep: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Positions of the given cells; positions and size of the asked cells, in units of given cells."""
        first, second = (batch.geometry[view] for view in self.views)
        # The config decides whether views are rotated, so one check is enough; it waits for the device.
        if not self._checked and not axis_aligned(first, second).all():
            raise SettingError(
                f"objectives.{self.name}: views {self.views} are rotated against each other, expected shifts, sizes "
                "and flips only: remove `rotate` from them"
            )
        self._checked = True
        grids = [tuple(side // self.patch_size for side in batch.views[view].shape[2:]) for view in self.views]
        cells = grid_points(grids[0], first.matrix)
        return cells if keep is None else cells[keep], *relative_cells(first, second, *grids)


def normed_patches(images: Tensor, patch_size: int) -> Tensor:
    """Pixels of patches (N, P, 3 p^2), row-major, each patch with mean 0 and unbiased variance 1 (MAE, section 3)."""
    patches = F.pixel_unshuffle(images, patch_size).flatten(2).mT
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()
