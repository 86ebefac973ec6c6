"""`tools/segment.py`: labels made from the model's own clusters are found again, whatever they are called."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from PIL import Image

from densessl.cli.segment import main
from densessl.configs import load_config
from densessl.errors import SettingError
from densessl.insight.segmentation import count_pixels, load_model, load_pair
from densessl.pretraining import link_views
from densessl.registry import MODELS
from tests.distributed import run_pair

CONFIG = str(Path(__file__).parents[2] / "configs" / "densesiam_r18_coco27.py")
OPTIONS = {
    "model.online.backbone.width": 8,
    "model.online.neck.out_channels": 8,
    "model.objectives.0.hidden": 8,
    "model.objectives.0.classes": 4,
    "model.objectives.0.aux_classes": 6,
    "views.0.size": 64,
    "views.1.size": 64,
}
ORDER = np.array([2, 0, 3, 1])  # the class of each cluster in the labels


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A model whose running statistics are those of its images; images of coloured regions around a 64-pixel square;
    and labels that are the model's clusters there under other names, 255 around it."""
    root = tmp_path_factory.mktemp("segment")
    rng = np.random.default_rng(0)
    cfg = load_config(CONFIG)
    cfg.merge_from_dict(OPTIONS)
    link_views(cfg)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("densessl"):
        model = MODELS.build(cfg.model)
    squares, boxes = [], []
    for number in range(5):
        width, height = ((64, 64), (90, 64), (64, 75), (65, 64), (64, 64))[number]
        pixels = np.kron(rng.integers(0, 256, (5, 6, 3)), np.ones((16, 16, 1))).astype(np.uint8)[:height, :width]
        left, top = (width - 64) // 2, (height - 64) // 2
        folder = root / "images" / ("a" if number < 3 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        squares.append(pixels[top : top + 64, left : left + 64])
        boxes.append((folder.name, number, left, top, width, height))
    images = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).double()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    images = ((images - mean) / std).float()
    head = model.online.projectors["densesiamsegmentation_pixel"]
    with torch.no_grad():
        for _ in range(60):
            head(model.train().online(images, neck=True).neck[0])
        logits = head(model.eval().online(images, neck=True).neck[0])
    clusters = F.interpolate(logits, (64, 64), mode="bilinear", align_corners=False).argmax(1).numpy()
    for (folder, number, left, top, width, height), found in zip(boxes, clusters):
        labels = np.full((height, width), 255, np.uint8)
        labels[top : top + 64, left : left + 64] = ORDER[found]
        (root / "labels" / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(root / "labels" / folder / f"{number}.png")
    torch.save({"state_dict": model.state_dict()}, root / "epoch_1.pth")
    assert len(np.unique(clusters)) == 4
    return root, clusters


def run(root, *arguments, labels="labels", code=0):
    options = [f"{key}={value}" for key, value in OPTIONS.items()]
    out = root / "out.json"
    found = main(
        [
            *(CONFIG, str(root / "epoch_1.pth"), "--images", str(root / "images"), "--labels", str(root / labels)),
            *("--out", str(out), "--device", "cpu", "--batch-size", "2", *arguments, "--cfg-options", *options),
        ]
    )
    assert found == code
    return json.loads(out.read_text()) if code == 0 else None


def test_the_models_own_clusters_under_other_names_are_perfect(case, capsys):
    root, _ = case
    found = run(root)
    assert found["miou"] == found["accuracy"] == 1 and found["iou"] == [1] * 4 and found["labelled"] == 1
    assert found["class_of_cluster"] == ORDER.tolist()
    assert "miou" in capsys.readouterr().out


def relabelled(root, name, change):
    for path in (root / "labels").rglob("*.png"):
        out = root / name / path.relative_to(root / "labels")
        out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(change(np.array(Image.open(path)))).save(out)
    return name


def test_wrong_pixels_count(case):
    """The upper rows of all squares get class 0: exactly those of other classes are wrong."""
    root, clusters = case

    def change(labels):
        top = (labels.shape[0] - 64) // 2
        labels[top : top + 8] = 0
        return labels

    truth = ORDER[clusters]
    wrong = (truth[:, :8] != 0).sum()
    found = run(root, labels=relabelled(root, "wrong", change))
    assert found["accuracy"] == pytest.approx(1 - wrong / truth.size)
    zero = (truth == 0).sum()
    assert found["iou"][0] == pytest.approx(zero / (zero + wrong))


def test_labels_are_mapped_and_ignored(case):
    """Labels 200 to 203 and a class of no interest, which is ignored; a mapping that lacks one loses its pixels."""
    root, clusters = case
    name = relabelled(root, "fine", lambda labels: np.where(labels == 255, 255, labels + 200).astype(np.uint8))
    (root / "map.json").write_text(json.dumps({str(200 + i): i for i in range(4)}))
    assert run(root, "--mapping", str(root / "map.json"), labels=name)["miou"] == 1
    found = run(root, "--mapping", str(root / "map.json"), "--ignore", "202", labels=name)
    assert found["labelled"] == pytest.approx(1 - (ORDER[clusters] == 2).mean()) and found["accuracy"] == 1
    assert run(root, "--ignore", "2")["labelled"] == found["labelled"]


def count(root):
    model, objective, size = load_model(CONFIG, Path(root, "epoch_1.pth"), OPTIONS)
    return count_pixels(model, objective, Path(root, "images"), Path(root, "labels"), size, batch_size=2)


def test_two_processes_count_what_one_does(case):
    """Five images: three on one rank, two on the other."""
    counts, labelled = count(case[0])
    for other, share in run_pair(count, str(case[0])):
        assert torch.equal(other, counts) and share == labelled == 1


def test_image_and_labels_are_the_same_square(tmp_path):
    """Enlarged to 96 pixels, labels by nearest pixel: each block of the image is that of its label."""
    blocks = np.random.default_rng(0).integers(0, 200, (6, 4)).astype(np.uint8)
    pixels = np.kron(blocks, np.ones((8, 8), np.uint8))
    Image.fromarray(pixels).save(tmp_path / "label.png")
    Image.fromarray(np.stack([pixels] * 3, -1)).save(tmp_path / "image.png")
    image, labels = load_pair(tmp_path / "image.png", tmp_path / "label.png", 96)
    assert torch.equal(labels, torch.from_numpy(np.kron(blocks[1:5], np.ones((24, 24), np.int64))))
    inner = (np.arange(96) % 24 > 4) & (np.arange(96) % 24 < 19)
    assert torch.equal(image[0][inner][:, inner].long(), labels[inner][:, inner])


def test_two_images_with_one_label_file_are_refused(case, tmp_path, capsys):
    root, _ = case
    shutil.copytree(root / "images", tmp_path / "images")
    Image.open(tmp_path / "images" / "a" / "0.png").save(tmp_path / "images" / "a" / "0.jpg")
    model, objective, size = load_model(CONFIG, root / "epoch_1.pth", OPTIONS)
    with pytest.raises(SettingError, match=r"'a/0.jpg' and 'a/0.png' have one label file, .*labels/a/0.png"):
        count_pixels(model, objective, tmp_path / "images", root / "labels", size)
    (tmp_path / "list.txt").write_text("images/a/0.png\nimages/a/0.png\n")
    shutil.copytree(root / "labels", tmp_path / "labels" / "images")
    counts, _ = count_pixels(model, objective, tmp_path / "list.txt", tmp_path / "labels", size)
    assert counts.sum() == 2 * 64 * 64


def test_what_is_missing_or_does_not_fit_is_named(case, tmp_path, capsys):
    root, _ = case
    run(root, labels="elsewhere", code=2)
    assert re.search(r"error: .*0\.png has no labels: expected .*elsewhere", capsys.readouterr().err)
    image = next((root / "images").rglob("1.png"))
    with pytest.raises(ValueError, match=r"has size \(64, 64\), expected that of its image, \(90, 64\)"):
        load_pair(image, root / "labels" / "a" / "0.png", 64)
    with pytest.raises(ValueError, match="no objective segments; found"):
        load_model(str(Path(CONFIG).with_name("pixpro_r18.py")), root / "epoch_1.pth")
