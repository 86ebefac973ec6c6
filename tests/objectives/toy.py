"""Small models and batches that tests of objectives share."""

import numpy as np
import torch

from densessl.data.batch import Batch, Regions, SampleRegions, pack_regions
from densessl.data.rng import keyed_rng
from densessl.data.views import ViewSpec, draw_crop
from densessl.geometry import ViewGeometry, affine
from densessl.model import TwoBranch
from densessl.schedules import Horizon

BACKBONE = dict(type="ResNet", depth=18, width=8, out_indices=(2, 3), norm_cfg=dict(type="SyncBN"), zero_gamma=False)
# 4 x 4 cells at 64 pixels.
VIT = dict(type="ViT", image_size=64, patch_size=16, dim=16, depth=2, heads=2, mlp_ratio=2, freeze_patch_embed=True)
HORIZON = Horizon(steps_per_epoch=5, epochs=2, total_steps=10, num_images=40, global_batch=8)


def toy_model(objectives, target=None, backbone=None, dtype=torch.float32, seed=0, neck=None, head=None) -> TwoBranch:
    torch.manual_seed(seed)
    target = target or dict(kind="ema", momentum=dict(type="cosine_momentum", base=0.9))
    model = TwoBranch(dict(backbone=backbone or BACKBONE, neck=neck, head=head), objectives, target).to(dtype)
    model.begin(HORIZON)
    return model.train()


def toy_geometry(images: int, view: int, size: int, scale=(0.3, 1.0), seed: int = 0) -> ViewGeometry:
    """Random crops, some flipped, of sources of 100 x 80."""
    items = []
    for index in range(images):
        draw = draw_crop(keyed_rng(seed, "toy", 0, index, view), (100, 80), ViewSpec(scale=scale))
        maps = [affine.crop(draw.left, draw.top), affine.resize((draw.width, draw.height), (size, size))]
        maps += [affine.hflip(size)] * draw.hflip
        items.append((affine.compose(*maps), (size, size), (100, 80)))
    return ViewGeometry.stack(items)


def toy_regions(images: int, uniforms: dict[str, int], seed: int = 0) -> list[SampleRegions]:
    """Boxes in sources of 100 x 80, six and two by turns."""
    samples = []
    for index in range(images):
        rng = keyed_rng(seed, "toy regions", 0, index)
        count = (6, 2)[index % 2]
        low = rng.uniform(0, 50, (count, 2))
        boxes = np.concatenate([low, np.minimum(low + rng.uniform(15, 60, (count, 2)), (100, 80))], 1)
        draws = {name: rng.random((count, numbers)) for name, numbers in uniforms.items()}
        samples.append(SampleRegions(boxes, rng.integers(1, 5, count), draws))
    return samples


def toy_batch(images=4, sizes=(64, 64), dtype=torch.float32, seed=0, uniforms=None, regions=None, masks=None) -> Batch:
    """Noise at random places.

    Args:
        uniforms: counts of random numbers by view and name.
        regions: counts of random numbers of each region by name; None for no regions.
        masks: numbers of cells and of those a mask leaves, by view.
    """
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(images, 3, size, size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]
    geometry = [toy_geometry(images, view, size, seed=seed) for view, size in enumerate(sizes)]
    draws = [
        {
            name: torch.rand(images, count, generator=generator, dtype=torch.float64)
            for name, count in (uniforms or {}).get(view, {}).items()
        }
        for view in range(len(sizes))
    ]
    for view, (cells, kept) in (masks or {}).items():
        order = torch.rand(images, cells, generator=generator).argsort(1)
        draws[view]["keep"] = order[:, :kept].sort(1).values
    keys = torch.from_numpy(np.stack([np.zeros(images, np.int64), np.arange(images)], -1))
    packed = None if regions is None else pack_regions(toy_regions(images, regions, seed), geometry)
    return Batch(views, geometry, draws, keys, packed)


def unpacked(regions: Regions, images: int) -> list[SampleRegions]:
    """Packed regions as the samples they came from."""
    return [
        SampleRegions(own.source.numpy(), own.levels.numpy(), {name: item.numpy() for name, item in own.draws.items()})
        for own in (regions.index(regions.owner == row) for row in range(images))
    ]


def without_overlap(batch: Batch, images: list[int]) -> Batch:
    """The batch with the views of some images moved to different corners of their sources."""
    geometry = []
    for number, item in enumerate(batch.geometry):
        matrix = item.matrix.clone()
        scale = 8.0 / item.view_size[0, 0].item()
        left = 90.0 * number / max(1, len(batch.geometry) - 1)
        matrix[images] = torch.tensor([[scale, 0, left], [0, scale, 0]], dtype=matrix.dtype)
        geometry.append(item._replace(matrix=matrix))
    regions = batch.regions and pack_regions(unpacked(batch.regions, len(batch.keys)), geometry)
    return batch._replace(geometry=geometry, regions=regions)


def rows(batch: Batch, index: torch.Tensor) -> Batch:
    """The batch of the given images."""
    geometry = [item.index(index) for item in batch.geometry]
    regions = batch.regions
    if regions is not None:
        samples = unpacked(regions, len(batch.keys))
        regions = pack_regions([samples[row] for row in index.tolist()], geometry)
    return batch._replace(
        views=[view[index] for view in batch.views],
        geometry=geometry,
        draws=[{name: value[index] for name, value in draws.items()} for draws in batch.draws],
        keys=batch.keys[index],
        regions=regions,
    )


def total(model: TwoBranch, batch: Batch) -> torch.Tensor:
    return model.parse_losses(model.loss(batch))[0]


def take_step(model: TwoBranch, batch: Batch, lr: float = 0.05) -> torch.Tensor:
    """One plain SGD step. Returns the loss before it."""
    loss = total(model, batch)
    model.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter -= lr * parameter.grad
    model.advance()
    return loss.detach()
