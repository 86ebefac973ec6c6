"""A stereo pair with known correspondences, which needs no download.

It is "motorcycle" of Middlebury 2014 (Scharstein et al., GCPR 2014) at a quarter of its size, which the scikit-image
package contains.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from densessl.extras import import_extra


class StereoPair(NamedTuple):
    """Two rectified images. The point (x, y) of the left one corresponds to (x - disparity, y) in the right one."""

    left: np.ndarray  # (H, W, 3) uint8
    right: np.ndarray  # (H, W, 3) uint8
    disparity: np.ndarray  # (H, W) float32 in pixels, for the left image; not finite if unknown

    def true_points(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the points of the right image that correspond to points of the left one.

        The disparity of a point is that of its pixel.

        Args:
            points: (K, 2) as (x, y) in pixel-edge coordinates, inside the left image.

        Returns:
            (K, 2) float64 points of the right image, NaN if invalid; and (K,) bool, which are valid: the disparity is
            known, and the point is inside the right image.
        """
        points = np.asarray(points, np.float64)
        column, row = np.floor(points).astype(int).T
        disparity = self.disparity[row, column].astype(np.float64)
        x = points[:, 0] - disparity
        valid = np.isfinite(disparity) & (x >= 0) & (x < self.right.shape[1])
        return np.where(valid[:, None], np.stack([x, points[:, 1]], axis=1), np.nan), valid


def motorcycle() -> StereoPair:
    """Load the pair: 741 x 500 pixels, with disparities from 7 to 60 pixels, known for 93 % of the pixels.

    Raises:
        MissingPackage: scikit-image is not installed.
    """
    folder = Path(import_extra("skimage", "the stereo pair").__file__).parent / "data"
    with np.load(folder / "motorcycle_disp.npz") as file:
        disparity = file["arr_0"]
    left, right = (
        np.asarray(Image.open(folder / f"motorcycle_{side}.png").convert("RGB")) for side in ("left", "right")
    )
    return StereoPair(left, right, disparity)


def relit(pair: StereoPair) -> StereoPair:
    """The pair with a changed right image: grey, darker (gamma 2.2) and blurred (sigma 2 pixels).

    With unchanged images, random weights match almost as well as trained ones, because a random convolution recognises
    patches of equal colours. Pretraining teaches invariance to such changes.
    """
    grey = Image.fromarray(pair.right).convert("L")
    dark = grey.point([round(255 * (value / 255) ** 2.2) for value in range(256)])
    return pair._replace(right=np.asarray(dark.filter(ImageFilter.GaussianBlur(2)).convert("RGB")))
