"""Labels in a check: what training uses and drops, by class and by reason, counted by hand."""

import io
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densessl.cli.data import main
from densessl.datacheck.contact_sheet import draw
from tests.datacheck.fixtures import Page, jpeg, picture
from tests.finetune.voc_coco_fixtures import write_coco, write_voc

RETINANET = "transfer/coco/retinanet_r18_256_coco"
GOOD = [10, 10, 40, 40]


def objects(*boxes, **more) -> list[dict]:
    return [dict(bbox=box, **more) for box in boxes]


def write_set(file: Path, photos: list[list[dict]]) -> Path:
    """A COCO json and its images of 96 x 80, ``0.jpg`` and so on; each entry is the objects of an image."""
    annotations = []
    for number, entries in enumerate(photos):
        picture(number + random.Random(file.stem).randrange(10**6)).save(file.parent / f"{file.stem}{number}.jpg")
        for entry in entries:
            area = entry["bbox"][2] * entry["bbox"][3] if len(entry["bbox"]) == 4 else 0
            annotations.append(
                dict(dict(id=len(annotations) + 1, image_id=number, category_id=1, area=area, iscrowd=0), **entry)
            )
    content = dict(
        images=[dict(id=n, file_name=f"{file.stem}{n}.jpg", width=96, height=80) for n in range(len(photos))],
        annotations=annotations,
        categories=[dict(id=1, name="fox"), dict(id=2, name="owl"), dict(id=3, name="hen")],
    )
    file.write_text(json.dumps(content))
    return file


@pytest.fixture
def labelled(tmp_path) -> Path:
    """4 images to train on, with objects that are dropped for each reason."""
    other = [12, 12, 30, 30]
    first = [
        *objects(GOOD),
        *objects(GOOD, category_id=2, iscrowd=1, segmentation=dict(size=[80, 96], counts=[0, 7680])),
        *objects([200, 200, 9, 9], [5, 5, 0, 9], [5, 5, 0.5, 9], [math.nan, 5, 9, 9], []),  # each for its own reason
        *objects(other, category_id=3),
        *objects(other, category_id=9),
    ]
    second = objects(GOOD, GOOD, [60, 60, 90, 90], category_id=2)  # a copy, and one that is clipped
    write_set(tmp_path / "train.json", [first, second, objects([5, 5, 0, 9]), []])
    write_set(tmp_path / "val.json", [objects(GOOD), objects(GOOD, category_id=2), []])
    return tmp_path


def check(*words: object, code: int = 0) -> dict:
    out = Path(words[-1]) / "found.json"
    assert main(["check", *map(str, words[:-1]), "--json", str(out), "--workers", "1"]) == code
    return json.loads(out.read_text())


def by_class(labels: dict) -> dict[str, tuple[int, ...]]:
    return {
        each["name"]: (each["labelled"], each["used"], each["ignored"], each["dropped"]) for each in labels["classes"]
    }


DROPPED = {
    "outside the image": 1,
    "without extent": 2,
    "narrower than a pixel": 1,
    "with a box that is not finite": 1,
    "without a box": 1,
    "of a category that the file does not define": 1,
    "copies of another object": 1,
}


def test_a_json_with_labels(labelled):
    result = check(labelled / "train.json", labelled)
    (images,) = result["sets"]
    labels = images["labels"]
    assert labels["left_out"] == DROPPED and labels["mended"]["clipped to the image"] == 1
    assert by_class(labels) == {"fox": (7, 1, 0, 6), "owl": (4, 2, 1, 1), "hen": (1, 1, 0, 0)}
    assert (labels["images"], labels["without_boxes"]) == (4, 2)
    assert labels["first"]["copies of another object"] == "train1.jpg"


@pytest.mark.det
def test_a_detector_s_train_and_validation_set(labelled, tmp_path, capsys):
    files = ["--train-json", labelled / "train.json", "--val-json", labelled / "val.json", "--classes", "owl,fox"]
    words = [RETINANET, *files, "--report", tmp_path / "out.html", "--samples", "99"]
    train, val = check(*words, labelled)["sets"]
    assert [(each["name"], each["images"], each["unreadable"]) for each in (train, val)] == [
        ("train", 4, 0),
        ("val", 3, 0),
    ]
    assert train["labels"]["left_out"] == DROPPED | {"of other categories": 1}
    assert by_class(train["labels"]) == {"owl": (4, 2, 1, 1), "fox": (7, 1, 0, 6), "hen": (1, 0, 0, 1)}
    assert train["labels"]["dropped_images"] == {"without boxes": 2}
    assert by_class(val["labels"]) == {"owl": (1, 1, 0, 0), "fox": (1, 1, 0, 0)}
    assert val["labels"]["dropped_images"] == {} and val["labels"]["without_boxes"] == 1
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "Next: densessl train " + " ".join(map(str, [RETINANET, *files]))
    assert len(Page((tmp_path / "out.html").read_text()).pictures) == 7


@pytest.mark.det
def test_what_training_logs_is_what_the_check_says(labelled, tmp_path):
    from densessl.finetune.config.counts import count_train_set
    from densessl.finetune.config.prepare import read_data
    from densessl.run_settings import RunSettings
    from densessl.runs import run_config

    files = dict(train_json=str(labelled / "train.json"), val_json=str(labelled / "val.json"))
    settings = RunSettings(RETINANET, init="none", work_dir=str(tmp_path / "run"), **files)
    cfg = run_config(settings)
    read_data(cfg, settings)
    counts = count_train_set(cfg)
    words = [word for name, file in files.items() for word in (f"--{name.replace('_', '-')}", file)]
    labels = check(RETINANET, *words, labelled)["sets"][0]["labels"]
    assert {name: used for name, (_, used, _, _) in by_class(labels).items()} == dict(counts.boxes)
    assert labels["images"] - sum(labels["dropped_images"].values()) == counts.trained == 2


@pytest.mark.det
def test_the_config_s_own_data_and_its_bad_images(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLASSES", "fox,owl")
    root = write_coco(tmp_path / "coco", images=4)
    bad = sorted((root / "train2017").glob("*.jpg"))[1:3]
    bad[0].write_bytes(bad[0].read_bytes()[:500])
    bad[1].unlink()
    result = check(RETINANET, "--data-root", root, "--write-clean", tmp_path / "clean.txt", tmp_path, code=3)
    assert {each["path"] for each in result["unreadable"]} == set(map(str, bad))
    assert [each["unreadable"] for each in result["sets"]] == [2, 0]
    assert len((tmp_path / "clean.txt").read_text().split()) == 2  # of the train set only
    assert "--bad-images 2" in capsys.readouterr().out.splitlines()[-1]
    check(RETINANET, "--data-root", root, "--bad-images", "2", tmp_path)


@pytest.mark.det
def test_voc_and_images_in_both_sets(tmp_path):
    root = write_voc(tmp_path / "voc")
    train, val = check("--voc-root", root, tmp_path)["sets"]
    assert by_class(train["labels"]) == by_class(val["labels"]) == {"fox": (4, 4, 0, 0), "owl": (4, 4, 0, 0)}
    result = check("--voc-root", root, tmp_path)
    stems = [set((root / f"VOC2007/ImageSets/Main/{part}.txt").read_text().split()) for part in ("trainval", "test")]
    assert result["duplicates_across_sets"] == result["exact_duplicates"]["groups"] == len(stems[0] & stems[1])


def test_sizes_other_than_stated(labelled, capsys):
    (labelled / "val1.jpg").write_bytes(jpeg(picture(77, 48, 40)))
    labels = check(labelled / "val.json", labelled)["sets"][0]["labels"]
    assert (labels["other_sizes"], labels["other_sizes_first"]) == (1, "val1.jpg")
    assert "another size than the labels state" in capsys.readouterr().out


def test_boxes_are_drawn_where_they_are():
    grey = np.full((100, 200, 3), 128, np.uint8)
    with Image.open(io.BytesIO(draw(grey, [("fox", (50, 20, 150, 80))], ["fox"]))) as image:
        changed = np.abs(np.asarray(image).astype(int) - 128).max(2) > 60
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    scale = 480 / 200
    corners = np.array([columns[0], rows[0], columns[-1], rows[-1]]) / scale
    assert np.abs(corners - (50, 20, 150, 80)).max() < 2
