"""Each operation against torchvision on float tensors, PIL, and float64 loops."""

import colorsys
import itertools

import numpy as np
import pytest
import scipy.ndimage
import skimage.data
import torch
import torchvision.transforms.functional as TF
from PIL import Image, ImageFilter, ImageOps

import densessl.augment.photometric
from densessl.augment import ColorJitter, GaussianBlur, Grayscale, Solarize
from densessl.augment.ops import ADJUSTMENTS, ORDERS, blur_radius
from tests.augment.oracle import ADJUST, draws_of, expected, photos

OPS = {
    "jitter": ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
    "strong jitter": ColorJitter(0.8, 1.2, 2.0, 0.5, p=1),
    "two of four": ColorJitter(0, 0.4, 0, 0.1, p=1),
    "grayscale": Grayscale(p=0.5),
    "blur": GaussianBlur(p=0.5),
    "ccop blur": GaussianBlur(p=1, radius=3),
    "solarize": Solarize(p=0.5),
    "solarize low": Solarize(40, p=1),
}
FACTORS = {
    "brightness": (0, 0.6, 1.4),
    "contrast": (0, 0.6, 1.4),
    "saturation": (0, 0.6, 1.8),
    "hue": (-0.5, -0.1, 0.07),
}
CASES = [(which, factor) for which, name in enumerate(FACTORS) for factor in FACTORS[name]]


@pytest.fixture(params=[1, 64], ids=["one by one", "at once"])
def rows(request, monkeypatch):
    """Both ways through a batch: as on the CPU, and all rows at once, as on a GPU."""
    monkeypatch.setattr(densessl.augment.photometric, "CPU_ROWS", request.param)


@pytest.mark.parametrize("name", OPS)
def test_equals_torchvision_on_floats(name, rows):
    op, images = OPS[name], photos(30) / 255
    draws = draws_of(op, len(images))
    want = torch.stack([expected(op, image, row) for image, row in zip(images, draws.tolist())])
    assert 0 < draws[:, 0].sum() <= len(draws)
    torch.testing.assert_close(op.apply(images, draws), want, rtol=0, atol=1e-5)


def test_orders_are_the_permutations():
    assert ORDERS.tolist() == [list(order) for order in itertools.permutations(range(4))]


@pytest.mark.parametrize(("which", "factor"), CASES)
def test_adjustments_equal_pil_up_to_its_rounding(which, factor):
    bytes_ = photos(4)
    ours = bytes_ / 255
    ADJUSTMENTS[which](ours, torch.full((4,), float(factor)))
    pil = torch.stack([TF.pil_to_tensor(ADJUST[which](TF.to_pil_image(image), factor)) for image in bytes_])
    difference = (255 * ours - pil).abs()
    if which == 3:  # PIL's HSV image has 256 hues
        assert difference.mean() <= 1
    else:
        assert difference.max() <= 1.5


@pytest.mark.parametrize("shift", [-0.5, -0.3, 0.0, 0.1, 0.25, 0.5])
def test_hue_equals_colorsys_in_float64(shift):
    """All colours of a coarse cube, ties and greys included."""
    colours = torch.tensor(list(itertools.product([0.0, 0.2, 0.5, 0.7, 1.0], repeat=3)), dtype=torch.float64)
    want = []
    for colour in colours.tolist():
        h, s, v = colorsys.rgb_to_hsv(*colour)
        want.append(colorsys.hsv_to_rgb((h + shift) % 1, s, v))
    image = colours.T.reshape(1, 3, 5, 25).clone()
    ADJUSTMENTS[3](image, torch.tensor([shift], dtype=torch.float64))
    torch.testing.assert_close(image.view(3, -1).T, torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shift", [-0.37, 0.1, 0.5])
def test_hue_stays_in_range_near_grey(shift):
    """Differences of a few ulp, denormals: no NaN, nothing outside [0, 1]."""
    base = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    tiny = torch.randint(0, 3, (1, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    for image in ((base + tiny * 2.0**-24).clamp(0, 1), tiny * 1e-45, 1 - tiny * 2.0**-24):
        out = image.clone()
        ADJUSTMENTS[3](out, torch.tensor([shift]))
        assert out.min() >= 0 and out.max() <= 1
        torch.testing.assert_close(out, image, rtol=0, atol=1e-6)


def test_float64_is_kept_throughout():
    """float64 adjustments agree with torchvision's to rounding; half precision is promoted."""
    images = photos(6).double() / 255
    for which, factor in [case for case in CASES if case[0] != 3]:
        ours = images.clone()
        ADJUSTMENTS[which](ours, torch.full((6,), factor, dtype=torch.float64))
        want = torch.stack([ADJUST[which](image, factor) for image in images])
        torch.testing.assert_close(ours, want, rtol=0, atol=1e-12)
    for op in OPS.values():
        draws = draws_of(op, 6)
        assert op.apply(images, draws).dtype == torch.float64
        assert op.apply(images.half(), draws).dtype == op.apply(images.bfloat16(), draws).dtype == torch.float32


def test_grayscale_equals_pil():
    bytes_ = photos(4)
    ours = Grayscale(p=1).apply(bytes_ / 255, torch.ones(4, 1))
    pil = [TF.pil_to_tensor(TF.to_grayscale(TF.to_pil_image(image), 3)) for image in bytes_]
    assert (255 * ours - torch.stack(pil)).abs().max() <= 1.5


@pytest.mark.parametrize("threshold", [0, 1, 77, 128, 255, 256])
def test_solarize_equals_pil_on_every_byte(threshold):
    bytes_ = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    ours = Solarize(threshold, p=1).apply(bytes_ / 255, torch.ones(1, 1))
    pil = TF.pil_to_tensor(ImageOps.solarize(TF.to_pil_image(bytes_[0]), threshold))
    assert torch.equal((255 * ours[0]).round().byte(), pil)


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.5, 1.0, 2.0])
def test_blur_is_the_gaussian(sigma):
    """scipy in float64, reflecting without the edge: the same cut exactly, and the uncut Gaussian within the cut."""
    image = photos(1).double() / 255
    op = GaussianBlur(p=1)
    sigma = float(np.float32(sigma))
    ours = op.apply(image, torch.tensor([[1, sigma]]))[0].numpy()
    for radius, tolerance in ((op.radius, 1e-12), (30, 1e-4)):
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        want = image[0].numpy()
        for axis in (1, 2):
            want = scipy.ndimage.correlate1d(want, weights / weights.sum(), axis, mode="mirror")
        assert np.abs(ours - want).max() <= tolerance


@pytest.mark.parametrize("sigma", [0.2, 0.7, 1.0, 2.0, 5.0])
def test_blur_radius_is_the_smallest_that_cuts_little(sigma):
    weights = np.exp(-0.5 * (np.arange(-200, 201) / sigma) ** 2)
    weights /= weights.sum()
    kept = {radius: weights[200 - radius : 201 + radius].sum() for radius in range(30)}
    assert blur_radius(sigma) == max(1, min(radius for radius in kept if 1 - kept[radius] < 1e-4))


@pytest.mark.parametrize(("sigma", "mean", "inside"), [(0.5, 0.55, 3.7), (1.0, 0.47, 2.4), (2.0, 0.37, 3.9)])
def test_blur_differs_from_pil_by_what_the_docstring_says(sigma, mean, inside):
    photo = skimage.data.astronaut()
    ours = GaussianBlur(p=1).apply(TF.to_tensor(photo)[None].double(), torch.tensor([[1, sigma]]))
    pil = TF.pil_to_tensor(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(sigma)))
    difference = (255 * ours[0] - pil).abs()
    assert difference.mean() == pytest.approx(mean, abs=0.02)
    assert difference[:, 12:-12, 12:-12].max() == pytest.approx(inside, abs=0.2)


def test_blur_refuses_images_that_the_kernel_does_not_fit():
    with pytest.raises(ValueError, match=r"\(8, 20\) pixels, expected more than the kernel's radius 8"):
        GaussianBlur(p=1).apply(torch.rand(1, 3, 8, 20), torch.tensor([[1, 0.5]]))
    GaussianBlur(p=1).apply(torch.rand(1, 3, 9, 20), torch.tensor([[1, 0.5]]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Grayscale(p=1.2), r"Grayscale: p=1.2"),
        (lambda: ColorJitter(0.4, -0.1, 0.4, 0.1, p=1), "contrast=-0.1"),
        (lambda: ColorJitter(0.4, 0.4, 0.4, 0.6, p=1), "hue=0.6, expected 0 to 0.5"),
        (lambda: GaussianBlur(sigma=(2, 0.1), p=1), "sigma="),
        (lambda: GaussianBlur(sigma=(0, 2), p=1), "sigma="),
        (lambda: Solarize(300, p=1), "threshold=300"),
    ],
)
def test_parameters_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
