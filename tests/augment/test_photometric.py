"""Whole recipes: values, which rows are written, what a row depends on, dtypes, devices, errors."""

import pickle

import pytest
import torch

import densessl.augment.photometric
from densessl.augment import ColorJitter, GaussianBlur, Grayscale, Photometric, Solarize, normalize
from densessl.errors import SettingError
from tests.augment.oracle import draws_of, expected, photos

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
VIEW_1 = [ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8), Grayscale(p=0.2), GaussianBlur(p=1)]
VIEW_2 = [ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8), Grayscale(p=0.2), GaussianBlur(p=0.1), Solarize(p=0.2)]
MOCO = [ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8), Grayscale(p=0.2), GaussianBlur(p=0.5)]
ALWAYS = [ColorJitter(0.4, 0.4, 0.4, 0.1, p=1), GaussianBlur(p=1), Solarize(60, p=1), Grayscale(p=0)]


@pytest.fixture(params=[1, 7, 64], ids=["one by one", "by seven", "at once"])
def rows(request, monkeypatch):
    """Every way through a batch: as on the CPU, in unequal parts, and all rows at once, as on a GPU."""
    monkeypatch.setattr(densessl.augment.photometric, "CPU_ROWS", request.param)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ops", [VIEW_1, VIEW_2, MOCO, ALWAYS], ids=["pixpro 1", "pixpro 2", "moco", "always"])
def test_recipe_equals_torchvision(ops, device, rows):
    recipe, images = Photometric(ops), photos(48) / 255
    draws = draws_of(recipe, len(images))
    ours = recipe(images.to(device), draws).cpu()
    for image, row, out in zip(images, draws, ours):
        near = torch.zeros_like(image, dtype=torch.bool)
        for op, part in zip(recipe.ops, row.split([op.width for op in recipe.ops])):
            if isinstance(op, Solarize) and part[0]:
                near |= (image - op.threshold).abs() < 1e-5  # either side of the jump is right
            image = expected(op, image, part.tolist())
        assert near.float().mean() < 0.01
        torch.testing.assert_close(out[~near], image[~near], rtol=0, atol=2e-5)


@pytest.mark.parametrize("op", [*VIEW_2, GaussianBlur(p=0.5)], ids=lambda op: f"{type(op).__name__} {op.p}")
def test_rows_that_are_not_selected_are_bit_identical(op, rows):
    images = photos(20) / 255
    before, draws = images.clone(), draws_of(op, 20)
    draws[:, 0] = torch.arange(20) % 3 == 0
    out = op.apply(images, draws)
    changed = (out != images).flatten(1).any(1)
    assert torch.equal(changed, draws[:, 0].bool())
    assert torch.equal(images, before), "the argument was written to"
    draws[:, 0] = 0
    assert torch.equal(op.apply(images, draws), images)


def test_a_row_does_not_depend_on_the_others(rows):
    recipe, images = Photometric(ALWAYS), photos(20) / 255
    draws = draws_of(recipe, 20)
    out = recipe(images, draws)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(recipe(images[order], draws[order]), out[order], rtol=0, atol=1e-6)
    alone = torch.cat([recipe(images[i : i + 1], draws[i : i + 1]) for i in range(20)])
    torch.testing.assert_close(alone, out, rtol=0, atol=1e-6)


def test_draws_determine_the_result():
    recipe, images = Photometric(VIEW_1), photos(8) / 255
    draws = draws_of(recipe, 8)
    torch.manual_seed(0)
    first = recipe(images, draws)
    torch.manual_seed(1)
    assert torch.equal(recipe(images, draws), first)
    assert torch.equal(pickle.loads(pickle.dumps(recipe))(images, draws), first)


def test_autocast_changes_nothing():
    recipe, images = Photometric(ALWAYS), photos(4) / 255
    draws = draws_of(recipe, 4)
    with torch.autocast("cpu", torch.bfloat16):
        out = recipe(images, draws)
    assert torch.equal(out, recipe(images, draws))


@pytest.mark.parametrize("shape", [(0, 3, 24, 24), (3, 3, 31, 17), (1, 3, 9, 224)])
def test_shapes(shape, rows):
    recipe = Photometric(ALWAYS)
    draws = torch.cat([torch.empty(0, recipe.width), draws_of(recipe, 3)])[: shape[0]]
    out = recipe(torch.rand(shape).to(memory_format=torch.channels_last), draws)
    assert out.shape == shape and out.is_contiguous()


def test_adjustments_of_no_strength_are_left_out():
    images, op = photos(4) / 255, ColorJitter(0, 0, 0, 0, p=1)
    assert torch.equal(op.apply(images, draws_of(op, 4)), images)


def test_an_empty_recipe_copies():
    images = photos(2) / 255
    out = Photometric([])(images, torch.empty(2, 0))
    assert torch.equal(out, images) and out.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("op", [*VIEW_2, GaussianBlur(p=0.5)], ids=lambda op: f"{type(op).__name__} {op.p}")
def test_pixels_are_never_read_by_the_host(op):
    """Tensors without data stand for those of a busy device: whatever would wait for a value raises."""
    draws = draws_of(op, 20)
    draws[:, 0] = torch.arange(20) % 3 == 0
    op.apply_(torch.empty(20, 3, 24, 24, device="meta"), draws)


def test_ops_are_built_from_configs():
    recipe = Photometric([{"type": "Solarize", "p": 0.2}, {"type": "densessl.Grayscale", "p": 0.1}, VIEW_1[0]])
    assert [type(op) for op in recipe.ops] == [Solarize, Grayscale, ColorJitter]
    with pytest.raises(SettingError, match=r"photometric\[1\]\.type 'GausianBlur' is unknown; .* GaussianBlur"):
        Photometric([VIEW_1[0], {"type": "GausianBlur", "p": 0.2}])
    with pytest.raises(SettingError, match=r"ops\[0\] is a str"):
        Photometric(["Grayscale"])


def test_wrong_arguments_are_named():
    recipe = Photometric(VIEW_1)
    images, draws = torch.rand(2, 3, 16, 16), draws_of(recipe, 2)
    with pytest.raises(TypeError, match=r"images are torch\.uint8"):
        recipe(images.byte(), draws)
    with pytest.raises(ValueError, match=r"images have shape \(2, 1, 16, 16\)"):
        recipe(images[:, :1], draws)
    with pytest.raises(
        ValueError, match=r"draws have shape \(2, 8\), expected \(2, 9\) \(ColorJitter 6 \+ Grayscale 1"
    ):
        recipe(images, draws[:, 1:])
    with pytest.raises(ValueError, match="draws are on meta, expected the CPU"):
        recipe(images, draws.to("meta"))


def test_normalize():
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    bytes_ = photos(2)
    want = (bytes_.double() - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    got = normalize(bytes_.double() / 255, mean, std)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)  # ``want`` has the numbers in float32
    torch.testing.assert_close(normalize(bytes_ / 255, mean, std), want.float(), rtol=0, atol=1e-5)
    assert got.dtype == torch.float64
    assert normalize(bytes_.half() / 255, mean, std).dtype == torch.float32
    torch.testing.assert_close(normalize(bytes_ / 255, (0, 0, 0), (1, 1, 1)), bytes_.float())
    with pytest.raises(ValueError, match=r"units of 0\.\.1"):
        normalize(bytes_ / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with pytest.raises(ValueError, match="three means"):
        normalize(bytes_ / 255, (1, 2), std)
