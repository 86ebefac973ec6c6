"""The commands of tools/look.py on checkpoints of a tiny backbone."""

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.branches.backbone import build_backbone
from densessl.cli.look import main
from densessl.insight.checkpoints import load_backbones, load_images
from densessl.insight.matching import MatchingResult
from densessl.insight.pictures import draw_matches
from densessl.insight.stereo import StereoPair
from densessl.weights.io.checkpoints import save_checkpoint

BACKBONES = {
    "resnet": {"type": "ResNet", "depth": 18, "width": 8},
    "vit": {"type": "ViT", "image_size": 32, "patch_size": 4, "dim": 16, "depth": 2, "heads": 2},
}


@pytest.fixture(params=BACKBONES)
def backbone(request):
    return BACKBONES[request.param]


@pytest.fixture
def checkpoint(tmp_path, backbone):
    """Weights of seed 7; `collapse` zeroes the network but for the bias of its last map."""

    def write(collapse: bool = False):
        torch.manual_seed(7)
        weights = build_backbone(backbone).state_dict()
        if collapse:
            weights = {
                key: torch.full_like(value, float(key.endswith("bias"))) if value.is_floating_point() else value
                for key, value in weights.items()
            }
        state = {f"online.backbone.{key}": value for key, value in weights.items()}
        about = {"backbone": backbone, "normalize": {"mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0]}}
        save_checkpoint(tmp_path / "epoch_1.pth", {"meta": {"densessl": about}, "state_dict": state})
        return tmp_path / "epoch_1.pth"

    return write


def test_load_backbones_gives_the_weights_of_the_file_and_leaves_random_numbers_alone(checkpoint, backbone):
    path = checkpoint()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    trained, random, pixels = load_backbones(path)
    assert torch.equal(torch.rand(2), expected)
    torch.manual_seed(7)
    original = build_backbone(backbone)
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in original.state_dict().items())
    assert not all(torch.equal(a, b) for a, b in zip(random.parameters(), trained.parameters()))
    assert pixels == {"mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0]}


def test_other_files_are_named(tmp_path):
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth.*expected a checkpoint of a densessl pretraining"):
        load_backbones(tmp_path / "other.pth")


def test_load_images_cuts_central_squares(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    Image.fromarray(wide).save(tmp_path / "a.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "b.png")
    Image.fromarray(wide).save(tmp_path / "c.png")
    images = load_images(tmp_path, 2, 5)
    assert images.shape == (2, 3, 5, 5)
    assert (images == 200).all()


def test_matching_writes_its_picture_and_figures(checkpoint, tmp_path, capsys):
    assert main(["matching", str(checkpoint()), str(tmp_path / "m.png"), "--size", "128", "192"]) == 0
    assert Image.open(tmp_path / "m.png").size == (2 * 741 + 8, 530)
    printed = capsys.readouterr().out
    assert "same light" in printed
    assert "other light" in printed
    assert printed.count("pck@1cell") == 2


@pytest.mark.parametrize("backbone", [BACKBONES["vit"]], ids=["vit"])
def test_matching_has_cells_of_one_size_whatever_the_stride(checkpoint, tmp_path, capsys):
    main(["matching", str(checkpoint()), str(tmp_path / "m.png")])
    assert "cells of 15.4 x 15.6 px" in " ".join(capsys.readouterr().out.split())


def test_spread_tells_a_collapsed_network(checkpoint, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    arguments = [str(folder), "--size", "64"]
    main(["spread", str(checkpoint()), *arguments])
    assert "Collapsed" not in capsys.readouterr().out
    main(["spread", str(checkpoint(collapse=True)), *arguments])
    printed = capsys.readouterr().out
    assert "Collapsed" in printed
    assert "features of 3 images" in printed


def test_a_picture_has_dots_where_the_points_are():
    grey = np.full((60, 80, 3), 100, np.uint8)
    points = np.array([[20.0, 30.0], [60.0, 30.0]])
    result = MatchingResult(points, points - (10, 0), points - (10, 20), points, (40.0, 60.0))
    picture = np.asarray(draw_matches(StereoPair(grey, grey, np.zeros((60, 80))), result, points=2)).astype(int)

    def vivid(x, y):
        return np.ptp(picture[y, x]) > 80

    assert vivid(20, 30)  # query
    assert vivid(88 + 10, 10)  # found
    assert vivid(88 + 10, 30 - 7)  # the ring of the truth
    assert not vivid(88 + 10 + 15, 30)
    assert not vivid(40, 30)


def test_knn_tells_classes_of_two_colours_apart(checkpoint, tmp_path, capsys):
    for name, colour in (("red", (220, 30, 30)), ("blue", (30, 30, 220))):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for number in range(4):
            noise = np.random.default_rng(number).integers(0, 20, (40, 50, 3))
            Image.fromarray((np.array(colour) + noise).astype(np.uint8)).save(tmp_path / f"classes/{name}/{number}.png")
    assert main(["knn", str(checkpoint()), str(tmp_path / "classes"), "--size", "32", "-k", "3"]) == 0
    out = capsys.readouterr().out
    assert "8 images of 2 classes" in out
    assert out.count("level ") == 1  # a row for each map
    assert "1.000" in out and "0.500" in out  # the classes found, and chance
