"""What the photometric tests compare with: torchvision's functions, image by image and draw by draw."""

import numpy as np
import skimage.data
import torch
import torchvision.transforms.functional as TF
from torch import Tensor

from densessl.augment import ColorJitter, GaussianBlur, Grayscale, PhotometricOp, Solarize
from densessl.augment.ops import ORDERS

ADJUST = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)


def photos(count: int, height: int = 40, width: int = 56) -> Tensor:
    """(count, 3, height, width) uint8: pieces of a photo, each with a stripe of greys, primaries, black and white."""
    source = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)
    rng = np.random.default_rng(0)
    corners = rng.integers(0, [512 - height, 512 - width], (count, 2))
    images = torch.stack([source[:, y : y + height, x : x + width] for y, x in corners])
    stripe = torch.tensor([[0, 0, 0], [255, 255, 255], [127, 127, 127], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    stripe = torch.cat([stripe, 255 - stripe, torch.tensor([[9, 9, 200], [200, 9, 200]])])
    images[:, :, 3, : len(stripe)] = stripe.T.byte()
    return images


def draws_of(op, count: int, seed: int = 0) -> Tensor:
    """(count, width), as the workers would send them."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([op.draw(rng) for _ in range(count)]))


def expected(op: PhotometricOp, image: Tensor, draws: list[float]) -> Tensor:
    """One operation on one image (3, H, W) by torchvision."""
    applied, *rest = draws
    if not applied:
        return image
    if isinstance(op, ColorJitter):
        for which in ORDERS[int(rest[4])].tolist():
            image = ADJUST[which](image, rest[which])
        return image
    if isinstance(op, Grayscale):
        return TF.rgb_to_grayscale(image, num_output_channels=3)
    if isinstance(op, GaussianBlur):
        return TF.gaussian_blur(image, 2 * op.radius + 1, rest[0])
    assert isinstance(op, Solarize)
    return TF.solarize(image, op.threshold)
