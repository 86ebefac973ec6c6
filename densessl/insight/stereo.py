"""A stereo pair whose true correspondences are known, without a download.

It is "motorcycle" of Middlebury 2014 (Scharstein et al., GCPR 2014) at a quarter of its size, which scikit-image
carries inside its package.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from densessl.extras import import_extra


class StereoPair(NamedTuple):
    """Two rectified images. The pixel of the left one at (x, y) is that of the right one at (x - disparity, y)."""

    left: np.ndarray  # (H, W, 3) uint8
    right: np.ndarray  # (H, W, 3) uint8
    disparity: np.ndarray  # (H, W) float32, in pixels, of the left image; not finite where it is not known

    def true_points(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where points of the left image are in the right one.

        The disparity is that of the pixel a point lies in; points are pixel-edge coordinates.

        Args:
            points: (K, 2) as (x, y), inside the left image.

        Returns:
            (K, 2) float64 points of the right image, and (K,) bool: disparity known and point inside the right image.
            Points that are not valid are NaN.
        """
        points = np.asarray(points, np.float64)
        column, row = np.floor(points).astype(int).T
        disparity = self.disparity[row, column].astype(np.float64)
        x = points[:, 0] - disparity
        valid = np.isfinite(disparity) & (x >= 0) & (x < self.right.shape[1])
        return np.where(valid[:, None], np.stack([x, points[:, 1]], axis=1), np.nan), valid


def motorcycle() -> StereoPair:
    """The pair, 741 x 500 pixels, disparities from 7 to 60 pixels, known for 93 % of the pixels.

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
    """The pair with the right image in another light: grey, darker (gamma 2.2) and blurred (sigma 2 pixels).

    In equal light random weights match almost as well as trained ones, because a random convolution tells patches of
    equal colours apart. What pretraining teaches is to see past such changes.
    """
    grey = Image.fromarray(pair.right).convert("L")
    dark = grey.point([round(255 * (value / 255) ** 2.2) for value in range(256)])
    return pair._replace(right=np.asarray(dark.filter(ImageFilter.GaussianBlur(2)).convert("RGB")))
