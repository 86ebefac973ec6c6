"""Dense matching: whether the features of a cell in one image find the same object part in another image.

Cells are matched by cosine similarity between two images of a scene whose geometry is known. This needs no training and
no labels, so it shows the effect of dense pretraining before a detector is trained.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densessl.augment.photometric import IMAGENET_MEAN, IMAGENET_STD
from densessl.insight.spread import chosen_level
from densessl.insight.stereo import StereoPair
from densessl.wording import at_least


@dataclass(frozen=True)
class MatchingResult:
    """Matches of K cells. Points are (x, y) in pixels of the original images, pixel-edge; errors are distances in these
    pixels."""

    query: np.ndarray  # (K, 2) centres of the cells of the left map whose true match is known
    truth: np.ndarray  # (K, 2) the true positions of these points in the right image
    found: np.ndarray  # (K, 2) centres of the most similar cells of the right map
    candidates: np.ndarray  # (M, 2) centres of all cells of the right map
    cell: tuple[float, float]  # width and height of a cell

    @property
    def error(self) -> np.ndarray:
        """(K,) distance from the matched cell to the true position."""
        return _distance(self.found, self.truth)

    @property
    def error_same_position(self) -> np.ndarray:
        """(K,) error of a baseline that answers with the query's own position."""
        return _distance(self.query, self.truth)

    @property
    def error_chance(self) -> np.ndarray:
        """(K, M) errors of all possible answers; their mean is the expected error of a random choice."""
        return _distances(self.truth, self.candidates)

    @property
    def exact(self) -> dict[str, float]:
        """Share of queries whose answer is the cell that contains the true position (the nearest centre).

        Returns:
            shares by method: "features", "same_position" and "chance", which is 1 over the number of cells.
        """
        best = self.error_chance.min(1)
        answers = {"features": self.found, "same_position": _nearest(self.query, self.candidates)}
        shares = {name: float((_distance(x, self.truth) <= best + 1e-9).mean()) for name, x in answers.items()}
        return shares | {"chance": 1 / len(self.candidates)}

    def figures(self, pixels: tuple[float, ...] = (8, 16, 32), cells: tuple[float, ...] = (1,)) -> dict[str, dict]:
        """PCK (the share of errors up to a threshold), mean and median error.

        Args:
            pixels: thresholds in pixels.
            cells: thresholds in cell widths.

        Returns:
            ``{"features": {"exact": ..., "pck@8px": ..., "pck@1cell": ..., "mean": ..., "median": ...},
            "same_position": {...}, "chance": {...}}``. Answers are cell centres, so even the best possible answer has
            an error of up to half a cell's diagonal.
        """
        thresholds = {f"pck@{t:g}px": t for t in pixels} | {f"pck@{t:g}cell": t * self.cell[0] for t in cells}
        answers = {
            "features": self.error,
            "same_position": self.error_same_position,
            "chance": self.error_chance,
        }
        exact = self.exact
        return {
            name: {"exact": exact[name]}
            | {key: pck(error, threshold) for key, threshold in thresholds.items()}
            | {"mean": float(error.mean()), "median": float(np.median(error))}
            for name, error in answers.items()
        }


def _nearest(points: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """For each of points (K, 2), the nearest of candidates (M, 2)."""
    return candidates[_distances(points, candidates).argmin(1)]


def _distances(points: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """All distances (K, M), without the differences (K, M, 2), which take gigabytes for fine maps."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(torch.from_numpy(points), torch.from_numpy(candidates), compute_mode=exact).numpy()


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b, axis=-1)


def pck(error: np.ndarray, threshold: float) -> float:
    """Share of errors that are at most ``threshold``, 0 to 1 ("percentage of correct keypoints")."""
    return float((error <= threshold).mean())


def cell_centres(map_size: tuple[int, int], image_size: tuple[int, int]) -> np.ndarray:
    """Centres (H * W, 2) of a map's cells, row by row, as (x, y) in pixels of the image. Sizes are (H, W)."""
    y, x = ((np.arange(cells) + 0.5) * pixels / cells for cells, pixels in zip(map_size, image_size))
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def nearest_by_cosine(queries: Tensor, keys: Tensor, chunk: int = 2048) -> Tensor:
    """Index (K,) of the key (M, C) with the largest cosine to each query (K, C); the first one of equal keys."""
    dtype = torch.promote_types(queries.dtype, torch.float32)
    keys = F.normalize(keys.to(dtype), dim=1)
    return torch.cat([(part.to(dtype) @ keys.T).argmax(dim=1) for part in queries.split(chunk)])


@torch.no_grad()
def dense_matching(
    backbone: nn.Module,
    pair: StereoPair,
    size: tuple[int, int] = (1024, 1536),
    level: int = -1,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> MatchingResult:
    """Match each cell of the left image whose true position is known with its most similar cell of the right image.

    Args:
        backbone: turns images (2, 3, H, W) into a tuple of maps (2, C, h, w). It runs in evaluation mode; its mode is
            restored.
        pair: the images and their disparity.
        size: (H, W) in pixels to which both images are resized (antialiased, bilinear), a multiple of the backbone's
            stride. The default doubles the motorcycle pair, so a cell of stride 32 covers about 16 of its pixels.
        level: index of the map to use.
        mean, std: normalisation of the images' three channels, whose values are from 0 to 255.

    Raises:
        SettingError: there is no such level, or ``size`` is not positive.
    """
    at_least("--size", min(size), 1)
    device = next((tensor.device for tensor in backbone.parameters()), torch.device("cpu"))
    images = torch.from_numpy(np.stack([pair.left, pair.right])).to(device).permute(0, 3, 1, 2).float()
    images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    images = (images - images.new_tensor(mean).view(3, 1, 1)) / images.new_tensor(std).view(3, 1, 1)
    training = backbone.training
    backbone.eval()
    try:
        maps = chosen_level(backbone(images), level)
    finally:
        backbone.train(training)

    height, width = pair.left.shape[:2]
    query = cell_centres(maps.shape[-2:], (height, width))
    candidates = cell_centres(maps.shape[-2:], pair.right.shape[:2])
    truth, valid = pair.true_points(query)
    left, right = maps.flatten(2).mT  # (cells, C) each
    found = nearest_by_cosine(left[torch.from_numpy(valid).to(device)], right).cpu().numpy()
    cell = (width / maps.shape[-1], height / maps.shape[-2])
    return MatchingResult(query[valid], truth[valid], candidates[found], candidates, cell)
