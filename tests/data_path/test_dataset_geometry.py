"""The whole path, from a file on disk to a batch: views of a coordinate ramp lie where their geometry says."""

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.data import UnlabelledImages, collate_views
from densessl.geometry import cell_centres

EXIF_ORIENTATION = 0x0112
# Undoing what a viewer does to an image of this orientation.
STORED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, 1),  # shown turned clockwise, so stored turned counter-clockwise
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, -1),
}
WIDTH, HEIGHT = 251, 203  # one grey value a source pixel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same upright ramp, stored in all orientations; odd sides, so that reduced decoding rounds them up."""
    root = tmp_path_factory.mktemp("ramps")
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ramp = np.stack([x, y, np.full_like(x, 128)], -1).astype(np.uint8)
    for orientation, stored in STORED.items():
        image = Image.fromarray(np.ascontiguousarray(stored(ramp)))
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        image.save(root / f"{orientation}.jpg", quality=100, subsampling=0, exif=exif)
    return root


VIEWS = [
    dict(size=24, scale=(0.3, 1.0)),
    dict(size=(36, 20), scale=(0.2, 0.6), hflip=1.0, vflip=0.5, interpolation="bicubic"),
    dict(size=32, scale=(0.5, 1.0), rotate=(-40, 40)),
]


@pytest.mark.parametrize("resample", ["fast", "pil"])
def test_pixels_lie_where_the_geometry_says(folder, resample):
    dataset = UnlabelledImages(str(folder), VIEWS, resample=resample)
    batch = collate_views([dataset[epoch, index] for index in range(8) for epoch in range(3)])
    reduced = set()
    for view, geometry in zip(batch.views, batch.geometry):
        assert geometry.source_size.tolist() == [[WIDTH, HEIGHT]] * 24
        told = cell_centres(geometry, tuple(view.shape[2:])).mT.unflatten(-1, view.shape[2:])
        shown = view[:, :2] + 0.5
        # Away from the borders of view and source, and from the fill of turned corners. JPEG and the colour space add
        # a grey value or two of noise to a pixel, so the mean over a view is held to half a source pixel.
        inside = ((told > 12) & (told < torch.tensor([WIDTH, HEIGHT])[:, None, None] - 12)).all(1)
        inside &= (view[:, 2] - 128).abs() < 2
        inside[:, :4], inside[:, -4:], inside[..., :4], inside[..., -4:] = False, False, False, False
        for row in range(24):
            error = (shown[row] - told[row])[:, inside[row]]
            assert inside[row].sum() > 100
            assert error.mean(1).abs().max() < 0.51, (row, error.mean(1))
            assert error.abs().max() < 3
        reduced |= {round(float(s)) for s in geometry.matrix[:, :, :2].norm(dim=1).flatten()}
    assert max(reduced) >= 4  # crops this large were decoded at reduced scale in the fast path


def test_reduced_decoding_is_used_and_can_be_switched_off(folder, monkeypatch):
    from densessl.data.decode import EncodedImage

    asked = []
    decode = EncodedImage.decode
    monkeypatch.setattr(EncodedImage, "decode", lambda self, d=1: asked.append(d) or decode(self, d))
    large = [dict(size=16, scale=(0.5, 1.0))]
    for options, expected in (({}, 8), (dict(scaled_decode=False), 1), (dict(resample="pil"), 1)):
        UnlabelledImages(str(folder), large, **options)[0, 0]
        assert asked.pop() == expected
    small = [dict(size=64, scale=(0.05, 0.1))]
    for views in (large + small, small + large):  # the smallest crop decides, whichever view has it
        UnlabelledImages(str(folder), views)[0, 0]
        assert asked.pop() == 1
