"""The photometric operations of the published recipes: colour jitter, grey, blur, solarise.

All change pixels in [0, 1] in place and follow ``torchvision.transforms.functional`` on float tensors. The PIL
pipelines of the official codes give the same results up to their rounding to bytes, except for the blur:
:class:`GaussianBlur` states the difference.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.augment.photometric import PhotometricOp, update_rows_
from densessl.constraints import Ascending, Count, NonNegative, Positive, Range, Share
from densessl.errors import SettingError
from densessl.registry import AUGMENTATIONS

# ORDERS[k, i] is the adjustment at position i of order k: 0 brightness, 1 contrast, 2 saturation, 3 hue.
ORDERS = torch.tensor(list(itertools.permutations(range(4))))


def gray(images: Tensor) -> Tensor:
    """Luma (N, ...) of ``images`` (N, 3, ...), by the ITU-R 601 weights as torchvision rounds them."""
    r, g, b = images.unbind(1)
    return (r * 0.2989).add_(g, alpha=0.587).add_(b, alpha=0.114)


def adjust_brightness_(images: Tensor, factor: Tensor) -> None:
    """Blend (N, 3, H, W) with black, in place: ``factor`` (N,) 0 is black, 1 the image."""
    images.mul_(factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def adjust_contrast_(images: Tensor, factor: Tensor) -> None:
    """Blend (N, 3, H, W) with the mean luma of each image, in place: ``factor`` (N,) 0 is flat grey, 1 the image."""
    _blend_(images, gray(images.mean((2, 3))).view(-1, 1, 1, 1), factor)


def adjust_saturation_(images: Tensor, factor: Tensor) -> None:
    """Blend (N, 3, H, W) with its luma, in place: ``factor`` (N,) 0 is grey, 1 the image."""
    _blend_(images, gray(images).unsqueeze(1), factor)


def _blend_(images: Tensor, other: Tensor, factor: Tensor) -> None:
    factor = factor.view(-1, 1, 1, 1)
    images.mul_(factor).add_(other * (1 - factor)).clamp_(0, 1)


def adjust_hue_(images: Tensor, shift: Tensor) -> None:
    """Turn the HSV hue of (N, 3, H, W), in place, by ``shift`` (N,) in turns.

    With value V = max and chroma C = max - min, the hue in sextants from red, in [-3, 3], is
    ``H = ±(1 + (G + B - R - min) / C)`` with the sign of ``G - B`` (check the six orders of R, G, B), and hue H has
    the colour ``R = min + C·w(3)``, ``G = V - C·w(2)``, ``B = V - C·w(4)``, ``w(k) = clamp(|H mod 6 - k| - 1, 0, 1)``.
    HSV images and their six cases compute the same function, with masks and several times the memory traffic.
    """
    r, g, b = images.unbind(1)
    high = torch.maximum(torch.maximum(r, g), b)
    low = torch.minimum(torch.minimum(r, g), b)
    chroma = high - low
    hue = (g + b).sub_(r).sub_(low)
    hue.div_(chroma.clamp_min(torch.finfo(images.dtype).tiny)).add_(1)  # grey: 0 / tiny, and C = 0 hides the hue
    hue.copysign_(g - b)
    # In turns, plus one so that frac() is taken of a positive number.
    hue = torch.add(shift.view(-1, 1, 1) + 1, hue, alpha=1 / 6).frac_().mul_(6)
    for channel, centre, base, sign in ((0, 3, low, 1), (1, 2, high, -1), (2, 4, high, -1)):
        weight = (hue - centre).abs_().sub_(1).clamp_(0, 1)
        torch.addcmul(base, chroma, weight, value=sign, out=images[:, channel])


ADJUSTMENTS = (adjust_brightness_, adjust_contrast_, adjust_saturation_, adjust_hue_)


@AUGMENTATIONS.register_module()
class ColorJitter(PhotometricOp):
    """With probability ``p``: brightness, contrast, saturation and hue by random amounts, in a random order.

    Each image has its own amounts and its own order of the four (MoCo v2, SimCLR). Adjustments of strength 0 are left
    out.

    Args:
        brightness, contrast, saturation: x, with factors ~ U[max(0, 1 - x), 1 + x].
        hue: h in [0, 0.5], with shifts ~ U[-h, h] in turns of the colour circle.

    Draws: applied, the three factors, the shift, the row of ``ORDERS``.

    Raises:
        SettingError: a strength is negative, or ``hue`` above 0.5.
    """

    width = 6

    def __init__(
        self,
        brightness: NonNegative,
        contrast: NonNegative,
        saturation: NonNegative,
        hue: Annotated[float, Range(0, 0.5)],
        p: Share,
    ):
        super().__init__(p)
        self.strengths = (brightness, contrast, saturation, hue)
        for name, strength in zip(("brightness", "contrast", "saturation", "hue"), self.strengths):
            if strength < 0 or (name == "hue" and strength > 0.5):
                raise SettingError(
                    f"ColorJitter: {name}={strength}, expected {'0 to 0.5' if name == 'hue' else '>= 0'}"
                )

    def parameters(self, rng: np.random.Generator) -> Sequence[float]:
        *blends, hue = self.strengths
        factors = [rng.uniform(max(0, 1 - x), 1 + x) for x in blends]
        return *factors, rng.uniform(-hue, hue), rng.integers(len(ORDERS))

    def transform_(self, images: Tensor, parameters: Tensor) -> None:
        # At each position of the order, group the rows by adjustment: 16 groups, moved to the device at once.
        due, rows = ORDERS[parameters[:, 4].long()].T.sort(dim=1, stable=True)
        amounts = parameters[rows, due].flatten().to(images.device, images.dtype, non_blocking=True)
        index = rows.flatten().to(images.device, non_blocking=True)
        sizes = (due + 4 * torch.arange(4)[:, None]).flatten().bincount(minlength=16).tolist()
        for group, (rows, amount) in enumerate(zip(index.split(sizes), amounts.split(sizes))):
            which = group % 4
            if len(rows) == 0 or self.strengths[which] == 0:
                continue
            if len(rows) == len(images):
                ADJUSTMENTS[which](images, amount)
            else:
                update_rows_(images, rows, ADJUSTMENTS[which], amount)


@AUGMENTATIONS.register_module()
class Grayscale(PhotometricOp):
    """With probability ``p``: all three channels become the luma. Draws: applied."""

    def __init__(self, p: Share):
        super().__init__(p)

    def transform_(self, images: Tensor, parameters: Tensor) -> None:
        images.copy_(gray(images).unsqueeze(1))


@AUGMENTATIONS.register_module()
class Solarize(PhotometricOp):
    """With probability ``p``: invert the values at or above ``threshold``, as ``PIL.ImageOps.solarize`` does.

    Args:
        threshold: in units of 0..255.

    Draws: applied.

    Raises:
        SettingError: ``threshold`` is outside [0, 256].
    """

    def __init__(self, threshold: Annotated[float, Range(0, 256)] = 128, *, p: Share):
        super().__init__(p)
        if not 0 <= threshold <= 256:
            raise SettingError(f"Solarize: threshold={threshold}, expected units of 0..255")
        self.threshold = threshold / 255

    def transform_(self, images: Tensor, parameters: Tensor) -> None:
        images.copy_(torch.where(images >= self.threshold, 1 - images, images))


@AUGMENTATIONS.register_module()
class GaussianBlur(PhotometricOp):
    """With probability ``p``: blur with a Gaussian of standard deviation ~ U(sigma), in pixels; borders are reflected.

    The kernel is the sampled Gaussian, normalised, and wide enough that less than 1e-4 of its weight is cut off at the
    largest sigma. The official pipelines call ``PIL.ImageFilter.GaussianBlur(radius=sigma)``, which applies a box blur
    three times and repeats the border pixels. On ``skimage.data.astronaut()`` the two differ, in levels of 255, by

    ===== ===== =========================== =======
    sigma mean  max, 12 px from the border  max
    ===== ===== =========================== =======
    0.5   0.55  3.7                         11.5
    1     0.47  2.4                         29.6
    2     0.37  3.9                         23.3
    ===== ===== =========================== =======

    Args:
        sigma: range (low, high) of the standard deviation, positive.
        radius: half width of the kernel; by default from the largest sigma. CCOP has 7 x 7 kernels, ``radius=3``.

    Draws: applied, sigma.

    Raises:
        SettingError: ``sigma`` is not an increasing pair of positive numbers, or an image is not larger than the
            radius.
    """

    width = 2

    def __init__(
        self,
        sigma: Annotated[tuple[Positive, Positive], Ascending()] = (0.1, 2.0),
        *,
        p: Share,
        radius: Count | None = None,
    ):
        super().__init__(p)
        if len(sigma) != 2 or not 0 < sigma[0] <= sigma[1]:
            raise SettingError(f"GaussianBlur: sigma={sigma}, expected (low, high) with 0 < low <= high")
        self.sigma = tuple(sigma)
        self.radius = blur_radius(sigma[1]) if radius is None else radius

    def parameters(self, rng: np.random.Generator) -> Sequence[float]:
        return (rng.uniform(*self.sigma),)

    def transform_(self, images: Tensor, parameters: Tensor) -> None:
        if min(images.shape[2:]) <= self.radius:
            raise SettingError(
                f"GaussianBlur: images of {tuple(images.shape[2:])} pixels, expected more than the kernel's radius "
                f"{self.radius} (sigma up to {self.sigma[1]})"
            )
        sigma = parameters[:, 0].to(images.device, images.dtype, non_blocking=True)
        offset = torch.arange(-self.radius, self.radius + 1, device=images.device)
        kernel = torch.exp(-0.5 * (offset / sigma[:, None]) ** 2)
        kernel /= kernel.sum(1, keepdim=True)
        images.copy_(_blur_lines(_blur_lines(images, kernel).mT, kernel).mT)


def blur_radius(sigma: float, cut: float = 1e-4) -> int:
    """The smallest radius at which the sampled Gaussian loses less than the share ``cut`` of its weight."""
    weight = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(math.ceil(10 * sigma) + 1)]
    total = 2 * sum(weight) - weight[0]
    return next(r for r in range(1, len(weight) + 1) if 2 * sum(weight[r + 1 :]) < cut * total)


def _blur_lines(images: Tensor, kernel: Tensor) -> Tensor:
    """Convolve (N, C, H, W) along W, image i with ``kernel[i]`` of (N, 2 * radius + 1).

    Each line is a channel of a depthwise convolution. The CPU kernels process 16 channels at a time and would mostly
    idle on the three channels of one image.
    """
    n, c, h, w = images.shape
    radius = kernel.shape[1] // 2
    lines = F.pad(images, (radius, radius, 0, 0), mode="reflect").view(1, n * c * h, w + 2 * radius)
    return F.conv1d(lines, kernel.repeat_interleave(c * h, 0).unsqueeze(1), groups=n * c * h).view(images.shape)
