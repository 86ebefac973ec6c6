"""What a config's data sets name: all that is missing is said at once, and nothing that is there."""

import json
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config

from densessl.data.sources import DataNotFound
from densessl.finetune.config.data_files import CHUNK, check_data, leaves, set_data_root
from tests.finetune.voc_coco_fixtures import write_coco, write_voc

pytestmark = pytest.mark.det


def coco(root: str, part: str) -> dict:
    files = dict(ann_file=f"annotations/instances_{part}.json", data_prefix=dict(img=f"{part}/"))
    return dict(type="CocoDataset", data_root=root, **files)


def coco_config(root: str) -> Config:
    train = dict(type="MultiImageMixDataset", dataset=coco(root, "train2017"), pipeline=[])
    val = dict(dataset=coco(root, "val2017"))
    evaluator = dict(type="CocoMetric", ann_file=f"{root}annotations/instances_val2017.json")
    return Config(
        dict(
            default_scope="mmdet",
            data_root=root,
            train_dataloader=dict(dataset=dict(type="RepeatDataset", times=2, dataset=train)),
            val_dataloader=val,
            test_dataloader=val,
            val_evaluator=[dict(type="VOCMetric"), evaluator],
            test_evaluator=evaluator,
        )
    )


def voc(root: str, year: str, part: str = "trainval") -> dict:
    files = dict(ann_file=f"{year}/ImageSets/Main/{part}.txt", data_prefix=dict(sub_data_root=f"{year}/"))
    return dict(type="VOCDataset", data_root=root, **files)


def voc_config(root: str) -> Config:
    both = dict(type="ConcatDataset", datasets=[voc(root, "VOC2007"), voc(root, "VOC2012")])
    val = dict(dataset=voc(root, "VOC2007", "test"))
    return Config(
        dict(
            default_scope="mmdet",
            train_dataloader=dict(dataset=dict(type="RepeatDataset", times=3, dataset=both)),
            val_dataloader=val,
            test_dataloader=val,
        )
    )


def cityscapes_config(root: str) -> Config:
    def loader(part: str) -> dict:
        prefixes = dict(img_path=f"leftImg8bit/{part}", seg_map_path=f"gtFine/{part}")
        return dict(dataset=dict(type="CityscapesDataset", data_root=root, data_prefix=prefixes))

    return Config(
        dict(
            default_scope="mmseg",
            train_dataloader=loader("train"),
            val_dataloader=loader("val"),
            test_dataloader=loader("val"),
        )
    )


def complaint(cfg: Config) -> str:
    with pytest.raises(DataNotFound) as caught:
        check_data(cfg)
    return str(caught.value)


def test_whole_data_sets_pass(tmp_path):
    check_data(coco_config(f"{write_coco(tmp_path / 'coco')}/"))
    check_data(voc_config(str(write_voc(tmp_path / "voc", years=("VOC2007", "VOC2012")))))


def test_leaves_are_found_under_wrappers_and_change_the_config():
    cfg = voc_config("data")
    found = leaves(cfg, "train_dataloader")
    assert [leaf.key for leaf in found] == [f"train_dataloader.dataset.dataset.datasets.{i}" for i in range(2)]
    assert {"VOCDataset", "XMLDataset"} <= found[0].formats
    found[1].cfg["ann_file"] = "other.txt"
    assert cfg.train_dataloader.dataset.dataset.datasets[1].ann_file == "other.txt"
    assert leaves(cfg, "no_dataloader") == []


def test_all_that_coco_lacks_is_listed_at_once_in_a_tree(tmp_path):
    root = write_coco(tmp_path / "coco")
    shutil.rmtree(root / "train2017")
    (root / "annotations/instances_val2017.json").unlink()
    text = complaint(coco_config(f"{root}/"))
    assert "2 of the 4 files and folders" in text
    lines = text.splitlines()
    (missing,) = [line for line in lines if line.startswith(f"  {root}/annotations")]
    assert "missing; there is instances_train2017.json" in missing
    for key in ("val_dataloader.dataset.ann_file", "test_dataloader.dataset.ann_file", "val_evaluator.1.ann_file"):
        assert key in missing
    tree = lines[lines.index("Expected:") + 1 :]
    assert [line.split("<-")[0].strip() for line in tree[:-1]] == [
        f"{root}/",
        "annotations/",
        "instances_train2017.json",
        "instances_val2017.json",
        "train2017/",
        "val2017/",
    ]
    assert "<- missing" in tree[3] and "<- missing" in tree[4] and "<-" not in tree[2] + tree[5]
    assert "--data-root DIR" in tree[-1]


def test_nothing_there_is_all_listed(tmp_path):
    text = complaint(voc_config(str(tmp_path / "nowhere")))
    assert "7 of the 7 files and folders" in text and f"{tmp_path}/nowhere/   <- missing" in text
    for name in ("trainval.txt", "test.txt", "JPEGImages/", "Annotations/", "VOC2007/", "VOC2012/"):
        assert name in text.split("Expected:")[1]


@pytest.mark.parametrize("given", ["voc/VOC2007", "."])
def test_the_folder_above_or_below_is_proposed(tmp_path, given):
    root = write_voc(tmp_path / "voc", years=("VOC2007", "VOC2012"))
    assert complaint(voc_config(str(tmp_path / given))).endswith(f"did you mean --data-root {root}?")


def test_a_listed_image_that_is_not_there_and_empty_folders_are_told(tmp_path):
    root = write_coco(tmp_path / "coco")
    for image in sorted((root / "train2017").iterdir())[:3]:  # most of the first ones
        image.unlink()
    for image in (root / "val2017").iterdir():
        image.unlink()
    text = complaint(coco_config(f"{root}/"))
    assert "train2017/000000000100.jpg: missing, though instances_train2017.json lists it" in text
    assert f"{root}/val2017: empty" in text
    voc_root = write_voc(tmp_path / "voc", years=("VOC2007", "VOC2012"))
    for labels in sorted((voc_root / "VOC2012/Annotations").iterdir())[:-1]:
        labels.unlink()
    text = complaint(voc_config(str(voc_root)))
    assert "1 of the 8" in text and "2012_000000.xml: missing, though trainval.txt lists it" in text


def test_a_config_without_validation_needs_its_train_set_only(tmp_path):
    root = write_coco(tmp_path / "coco", sets=("train2017",))
    cfg = coco_config(f"{root}/")
    assert "2 of the 4" in complaint(cfg)
    cfg.val_dataloader = cfg.val_evaluator = None
    check_data(cfg)


def test_a_file_for_a_folder_is_told(tmp_path):
    root = write_coco(tmp_path / "coco")
    shutil.rmtree(root / "val2017")
    (root / "val2017").write_text("")
    assert "val2017: a file, expected a folder" in complaint(coco_config(f"{root}/"))


def test_the_first_image_is_found_in_large_files_and_after_the_annotations(tmp_path):
    root = write_coco(tmp_path / "coco")
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    images = content.pop("images")[:1]
    images[0]["file_name"] = 'a "b" ü.jpg'
    before = json.dumps(dict(content, filler="")).index('"filler": "') + len('"filler": "", "images": [{')
    for size in (CHUNK // 2, *(CHUNK - before - cut for cut in range(0, 60, 5)), 2 * CHUNK):
        path.write_text(json.dumps(dict(content, filler="x" * size, images=images)))
        assert 'a "b" ü.jpg: missing' in complaint(coco_config(f"{root}/"))
    shutil.copy(root / "train2017/000000000101.jpg", root / 'train2017/a "b" ü.jpg')
    check_data(coco_config(f"{root}/"))


def test_maps_of_cityscapes_that_are_still_to_be_made_are_told(tmp_path):
    pytest.importorskip("mmseg")
    for part in ("train", "val"):
        for folder, name in (("leftImg8bit", "a_leftImg8bit.png"), ("gtFine", "a_gtFine_labelTrainIds.png")):
            (tmp_path / folder / part / "ulm").mkdir(parents=True)
            (tmp_path / folder / part / "ulm" / name).write_text("")
    check_data(cityscapes_config(str(tmp_path)))
    made = tmp_path / "gtFine/train/ulm/a_gtFine_labelTrainIds.png"
    made.rename(made.with_name("a_gtFine_labelIds.png"))
    text = complaint(cityscapes_config(str(tmp_path)))
    assert f"{tmp_path}/gtFine/train: holds no *_gtFine_labelTrainIds.png" in text and "1 of the 4" in text


def test_files_elsewhere_are_not_looked_for():
    cfg = coco_config("s3://bucket/coco/")
    check_data(cfg)
    cfg = voc_config("data")
    for loader in ("train", "val", "test"):
        for leaf in leaves(cfg, f"{loader}_dataloader"):
            leaf.cfg["backend_args"] = dict(backend="petrel")
    check_data(cfg)


def test_a_data_root_leaves_other_paths_alone():
    cfg = Config(
        dict(
            data_root="data/coco",
            work_dir="data/coco/runs",
            load_from="data/coco/x.pth",
            train_dataloader=dict(dataset=dict(type="CocoDataset", ann_file="data/coco_mini/a.json")),
            val_evaluator=dict(type="CocoMetric", ann_file="data/coco/b.json"),
        )
    )
    set_data_root(cfg, "/photos")
    assert (cfg.work_dir, cfg.load_from) == ("data/coco/runs", "data/coco/x.pth")
    assert cfg.train_dataloader.dataset.ann_file == "data/coco_mini/a.json"
    assert cfg.val_evaluator.ann_file == "/photos/b.json" and cfg.data_root == "/photos/"


def test_a_data_root_takes_the_place_of_every_old_one(tmp_path):
    cfg = coco_config("data/coco/")
    set_data_root(cfg, "elsewhere")
    found = [leaf.cfg["data_root"] for part in ("train", "val", "test") for leaf in leaves(cfg, f"{part}_dataloader")]
    assert found == ["elsewhere/"] * 3
    assert cfg.val_evaluator[1].ann_file == "elsewhere/annotations/instances_val2017.json"
    cfg.pop("data_root")  # as in configs that name it in their data sets only
    set_data_root(cfg, str(tmp_path))
    assert Path(cfg.test_evaluator.ann_file) == tmp_path / "annotations/instances_val2017.json"
