"""A bad image does not end a fine-tuning, in training or in evaluation."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from densessl.cli.train import main, settings_of
from densessl.data.bad_images import recorded
from densessl.data.decode import UnreadableImage
from densessl.data.sources import DataNotFound
from densessl.finetune.config.prepare import read_data
from densessl.finetune.reading import FILLING, ReadImage, ReplacingDataset
from densessl.runs import build_run, run_config
from tests.finetune.voc_coco_fixtures import write_coco

pytestmark = pytest.mark.det
SMALL = str(Path(__file__).parents[2] / "configs/transfer/coco/retinanet_r18_256_coco.py")
NARROW = ["model.neck.out_channels=8", "model.bbox_head.in_channels=8", "model.bbox_head.feat_channels=8"]
QUICK = ["--init", "none", "--steps", "2", "--set", *NARROW, "model.bbox_head.norm_cfg.num_groups=2"]
QUICK += ["train_dataloader.batch_size=2", "default_hooks.logger.interval=1", "optim_wrapper.precision=fp32"]


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """COCO files of eight photos; two to train on and one to test on cannot be read."""
    monkeypatch.setenv("CLASSES", "fox,owl")
    root = write_coco(tmp_path / "data", images=8)
    train, val = (sorted((root / part).iterdir()) for part in ("train2017", "val2017"))
    train[2].write_bytes(train[2].read_bytes()[:400])
    train[5].unlink()
    val[1].write_text("<html>")
    return root


def test_training_goes_on_and_tells(damaged, tmp_path, capsys):
    words = ["--data-root", str(damaged), "--work-dir", str(tmp_path / "run"), "--bad-images", "3", *QUICK]
    assert main([SMALL, *words, "train_dataloader.sampler.shuffle=False", "train_dataloader.batch_size=4"]) == 0
    found = {Path(path).name: line for path, line in recorded(tmp_path / "run" / "bad_images.jsonl").items()}
    assert {name: line["instead"] for name, line in found.items()} == {
        "000000000102.jpg": "another image",
        "000000000105.jpg": "another image",
        "000000000109.jpg": "grey",
    }
    (log,) = (tmp_path / "run").glob("*/*.log")
    assert "000000000105.jpg: No such file or directory; another image is used instead" in log.read_text()


def test_beyond_the_budget_it_ends_with_exit_code_3(damaged, tmp_path, capfd):
    words = ["--data-root", str(damaged), "--work-dir", str(tmp_path / "run"), *QUICK]
    assert main([SMALL, *words, "train_dataloader.batch_size=8"]) == 3
    said = capfd.readouterr().err
    assert "error: 2 of 8 images cannot be read, more than --bad-images 0.1% allows (1)" in said


def test_any_worker_replaces_alike_and_labels_come_along(damaged, tmp_path):
    options = [SMALL, "--data-root", str(damaged), "--work-dir", str(tmp_path / "run"), "--bad-images", "2", *QUICK]
    runner = build_run(settings_of(options))
    dataset = runner.train_dataloader.dataset
    assert isinstance(dataset, ReplacingDataset) and list(dataset.metainfo["classes"]) == ["fox", "owl"]
    once, twice = ([dataset[index]["data_samples"] for index in range(8)] for _ in range(2))
    paths = [sample.img_path for sample in once]
    assert paths == [sample.img_path for sample in twice]
    assert len(set(paths)) == 6 and all("102.jpg" not in path and "105.jpg" not in path for path in paths)
    content = json.loads((damaged / "annotations" / "instances_train2017.json").read_text())
    for index in (2, 5):
        used = next(image for image in content["images"] if image["file_name"] == Path(paths[index]).name)
        boxes = sum(each["image_id"] == used["id"] for each in content["annotations"])
        assert len(once[index].gt_instances) == boxes > 0


def test_the_reader_is_mmdetections_for_sound_files(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "a.jpg", "turned.jpg"):
        Image.fromarray(pixels).save(tmp_path / name, **({"exif": exif} if name == "turned.jpg" else {}))
        results = ReadImage().transform(dict(img_path=str(tmp_path / name)))
        np.testing.assert_array_equal(results["img"], cv2.imread(str(tmp_path / name)))
        assert results["img_shape"] == results["ori_shape"] == results["img"].shape[:2]
        assert results["img"].flags.c_contiguous
    assert ReadImage(to_float32=True).transform(dict(img_path=str(tmp_path / "a.png")))["img"].dtype == np.float32


def test_what_cannot_be_read_is_an_error_or_grey(tmp_path):
    missing = dict(img_path=str(tmp_path / "no.jpg"), height=4, width=6)
    with pytest.raises(UnreadableImage, match=r"no\.jpg"):
        ReadImage().transform(dict(missing))
    grey = ReadImage(unreadable="grey", record=str(tmp_path / "bad.jsonl")).transform(dict(missing))["img"]
    assert grey.shape == (4, 6, 3) and (grey == FILLING).all()
    assert recorded(tmp_path / "bad.jsonl")[missing["img_path"]]["instead"] == "grey"


def test_a_missing_first_image_is_left_to_the_budget_and_most_missing_is_the_wrong_folder(damaged, tmp_path):
    options = [SMALL, "--data-root", str(damaged), "--work-dir", str(tmp_path / "run"), "--bad-images", "3", *QUICK]
    settings = settings_of(options)
    photos = sorted((damaged / "train2017").iterdir())
    photos[0].unlink()
    read_data(run_config(settings), settings)
    for photo in photos[1:5]:
        photo.unlink()
    with pytest.raises(DataNotFound, match=f"{photos[0].name}: missing, though instances_train2017.json lists it"):
        read_data(run_config(settings), settings)
