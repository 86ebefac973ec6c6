"""One's own labels in any detector's config: data sets, classes, heads and evaluators follow the options."""

import json
from pathlib import Path

import pytest
from mmengine.registry import MODELS, DefaultScope

from densessl.cli.compare import grid_of
from densessl.cli.compare import parser as compare_parser
from densessl.cli.train import settings_of
from densessl.comparison.grid import command, shared_identity
from densessl.errors import DensesslError, SettingError
from densessl.finetune.config.own_data import _heads
from densessl.finetune.config.prepare import read_data
from densessl.runs import run_config
from tests.finetune.labels.test_truth import write_voc, write_yolo
from tests.finetune.labels.truth import SIZE, Thing, built, expected, perfect_ap, seen, write_photos

pytestmark = pytest.mark.det
TRUTH = {
    "a/1.jpg": [Thing("owl", (10, 20, 30, 40), False), Thing("fox", (60, 20, 30, 40), False)],
    "b/1.jpg": [Thing("hen", (10, 30, 50, 40), False)],
    "2.jpg": [],
}
SMALL_COCO, SMALL_VOC = "transfer/coco/retinanet_r18_256_coco", "transfer/voc/retinanet_r18_256_voc"


def write_coco(root: Path) -> list[str]:
    names = {"owl": 9, "fox": 4, "hen": 5}
    write_photos(root / "photos", TRUTH)
    for part in ("train", "val"):
        content = dict(images=[], annotations=[], categories=[dict(id=i, name=n) for n, i in names.items()])
        for number, (name, things) in enumerate(TRUTH.items()):
            content["images"].append(dict(id=number, file_name=name, width=SIZE[0], height=SIZE[1]))
            content["annotations"] += [
                dict(image_id=number, category_id=names[each.name], bbox=each.box, segmentation=polygon(each))
                for each in things
            ]
        (root / f"{part}.json").write_text(json.dumps(content))
    return ["--train-json", f"{root}/train.json", "--val-json", f"{root}/val.json", "--images", f"{root}/photos"]


def polygon(thing: Thing) -> list[list[float]]:
    x0, y0, x1, y1 = thing.corners
    return [[x0, y0, x1, y0, x1, y1]]


def voc_root(root: Path) -> list[str]:
    write_voc(root, TRUTH, False, 0)
    (root / "ImageSets/Main/all.txt").rename(root / "ImageSets/Main/train.txt")
    (root / "ImageSets/Main/val.txt").write_text((root / "ImageSets/Main/train.txt").read_text())
    return ["--voc-root", str(root)]


def yolo_root(root: Path) -> list[str]:
    write_yolo(root, TRUTH, False)
    for folder in ("images", "labels"):
        (root / folder / "train").symlink_to(root / folder / "val")
    return ["--yolo-root", str(root)]


FORMATS = {
    "coco": (write_coco, ("fox", "hen", "owl"), "photos"),
    "voc": (voc_root, ("fox", "hen", "owl"), "JPEGImages"),
    "yolo": (yolo_root, ("fox", "owl", "hen"), "images"),
}


def prepared(tmp_path, config: str, *words: str):
    settings = settings_of([config, "--init", "none", "--work-dir", str(tmp_path / "run"), *words])
    cfg = run_config(settings)
    return cfg, read_data(cfg, settings)


@pytest.mark.parametrize("config", [SMALL_COCO, SMALL_VOC, "mmdet::retinanet/retinanet_r50_fpn_1x_coco"])
@pytest.mark.parametrize("kind", FORMATS)
def test_any_format_in_any_config(tmp_path, monkeypatch, kind, config):
    monkeypatch.delenv("CLASSES", raising=False)
    write, names, images = FORMATS[kind]
    cfg, lines = prepared(tmp_path, config, *write(tmp_path / "data"), "--steps", "2")
    root = tmp_path / "data" / images / ("val" if kind == "yolo" else "")
    assert tuple(built(cfg, "train_dataloader").metainfo["classes"]) == names
    assert cfg.model.bbox_head.num_classes == 3
    found = seen(built(cfg, "val_dataloader"), root)
    assert found == {name: sorted(things) for name, things in expected(TRUTH).items()}
    evaluators = cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]
    for each in evaluators:
        each.pop("metric_items", None)
    assert set(perfect_ap(cfg, found, root)) == {1.0}
    assert any("trains on 2 of 3 images, left out: 1 without boxes" in line for line in lines)


def test_classes_are_chosen_and_a_typo_is_told(tmp_path):
    words = write_coco(tmp_path / "data")
    cfg, lines = prepared(tmp_path, SMALL_COCO, *words, "--classes", "owl, fox")
    assert cfg.model.bbox_head.num_classes == 2
    assert built(cfg, "val_dataloader").metainfo["classes"] == ("owl", "fox")
    assert any("1 of other categories" in line and "'hen'" in line for line in lines)
    with pytest.raises(SettingError, match="has no category 'foxx'; did you mean fox"):
        prepared(tmp_path, SMALL_COCO, *words, "--classes", "foxx")


def test_the_environment_variable_names_classes(tmp_path, monkeypatch):
    monkeypatch.setenv("CLASSES", "hen,owl")
    cfg, _ = prepared(tmp_path, SMALL_COCO, *write_coco(tmp_path / "data"))
    assert built(cfg, "val_dataloader").metainfo["classes"] == ("hen", "owl")
    assert cfg.model.bbox_head.num_classes == 2


def test_parts_of_the_labels(tmp_path):
    cfg, lines = prepared(tmp_path, SMALL_COCO, *yolo_root(tmp_path / "data"), "--labels", "2-images", "--steps", "2")
    assert len(built(cfg, "train_dataloader")) == 2
    assert any("--labels 2-images, seed 0: 2 of 3 images" in line for line in lines)


def test_masks_of_polygons(tmp_path):
    root = tmp_path / "data"
    write_yolo(root, TRUTH, True)
    for folder in ("images", "labels"):
        (root / folder / "train").symlink_to(root / folder / "val")
    cfg, _ = prepared(tmp_path, "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco", "--yolo-root", str(root))
    assert all("mask" in each for each in built(cfg, "train_dataloader").get_data_info(0)["instances"])
    assert cfg.val_evaluator.metric == ["bbox", "segm"]
    with pytest.raises(SettingError, match=r"3 of 3 objects have no usable mask .*--boxes-as-masks"):
        prepared(tmp_path, "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco", *voc_root(tmp_path / "voc"))


def test_masks_of_runs_that_a_pipeline_would_leave_out_are_told(tmp_path):
    words = write_coco(tmp_path / "data")
    for file in tmp_path.rglob("*.json"):
        content = json.loads(file.read_text())
        sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
        for each in content["annotations"]:
            height, width = sizes[each["image_id"]]
            each["segmentation"] = dict(size=[height, width], counts=[0, height * width])
        file.write_text(json.dumps(content))
    config, key = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco", "train_dataloader.dataset.pipeline.1.poly2mask"
    prepared(tmp_path, config, *words)
    with pytest.raises(SettingError, match=r"have a mask of runs \(RLE\), which train_dataloader"):
        prepared(tmp_path, config, *words, "--set", f"{key}=False")


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        ("mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco", 4),
        ("mmdet::dino/dino-4scale_r50_8xb2-12e_coco", 1),
        ("mmdet::htc/htc_r50_fpn_1x_coco", 6),
        ("mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco", 6),
        ("mmdet::solov2/solov2_r50_fpn_1x_coco", 1),
        ("mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco", 2),
    ],
)
def test_every_head_gets_the_number_of_classes(tmp_path, config, heads):
    cfg, _ = prepared(tmp_path, config, *write_coco(tmp_path / "data"))
    assert [node[key] for node, key in _heads(cfg.model, ())] == [3] * heads
    if "mask2former" in config:
        assert len(cfg.model.panoptic_head.loss_cls.class_weight) == 4
    if "htc" in config:
        assert cfg.model.roi_head.semantic_head.num_classes == 183
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope("mmdet"):
        MODELS.build(cfg.model)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train-json", "a.json"], "--train-json needs --val-json"),
        (["--val-json", "a.json"], "found --val-json; expected --train-json and --val-json, or --voc-root"),
        (["--voc-root", "a", "--yolo-root", "b"], "found --voc-root, --yolo-root; expected"),
        (["--voc-root", "a", "--images", "b"], "found --images, --voc-root; --voc-root needs none of the others"),
        (["--voc-root", "a", "--data-root", "b"], "--data-root is for the config's own data"),
        (["--train-json", "a.json", "--val-json", "b.json"], "--train-json: there is no file a.json"),
        (["--train-json", "a", "--val-json", "b", "--val-images", "c"], "--val-images needs --images"),
        (["--voc-root", "nowhere"], "--voc-root: there is no folder .*nowhere"),
        (["--yolo-root", "nowhere"], "--yolo-root: there is no folder .*nowhere"),
        (["--yolo-root", "."], "neither a data.yaml with names nor a classes.txt"),
        (["--voc-root", "."], "has no folder Annotations with XML files"),
        (["--classes", "fox,,owl"], "--classes: found 'fox,,owl', expected names separated by commas"),
        (["--classes", "fox,fox"], "--classes: found 'fox' more than once"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DensesslError, match=said):
        prepared(tmp_path, SMALL_COCO, *words)


@pytest.mark.parametrize("config", ["pixpro_r18", "transfer/voc/fcn_r50-d8_512_20k"])
def test_other_configs_refuse_them(tmp_path, config):
    with pytest.raises(SettingError, match="--voc-root is for"):
        run_config(settings_of([config, "--voc-root", "a", "--work-dir", str(tmp_path)]))


def test_lists_and_folders_of_yolo(tmp_path):
    """Roboflow's layout, with the paths that it writes, and coordinates in pixels."""
    root = tmp_path / "data"
    write_yolo(root, TRUTH, False)
    for part in ("train", "valid"):
        (root / part).mkdir()
        for folder in ("images", "labels"):
            (root / part / folder).symlink_to(root / folder / "val")
    (root / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnames: [fox, owl, hen]\n")
    _, lines = prepared(tmp_path, SMALL_COCO, "--yolo-root", str(root))
    assert any("trains on 2 of 3 images" in line for line in lines)
    (root / "images/val/broken.jpg").write_bytes(b"no image")
    _, lines = prepared(tmp_path, SMALL_COCO, "--yolo-root", str(root))
    assert any("mended: 1 sizes assumed, because the images cannot be read (first: train/images" in x for x in lines)
    (root / "labels/val/a/1.txt").write_text("0 60 50 20 10\n0 70 50 20 10\n")
    with pytest.raises(SettingError, match=r"2 of 3 objects have coordinates above 1\.5"):
        prepared(tmp_path, SMALL_COCO, "--yolo-root", str(root))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("data.yaml", "names: fox", "names is 'fox', expected a list of names"),
        ("data.yaml", "names: {0: fox, 2: owl}", "names has the numbers 0, 2, expected 0 to 1"),
        ("data.yaml", "names: [fox, owl, hen]\nval: 5", "val in its YAML file is 5, expected a folder"),
        ("data.yaml", "names: [f\xf6x]", "data.yaml is not text in UTF-8"),
        ("labels/val/a/1.txt", "0 .5 .5 .1 .1 \xf6", "1.txt is not text in UTF-8"),
    ],
)
def test_broken_files_of_yolo_are_refused_in_words(tmp_path, file, content, said):
    words = yolo_root(tmp_path / "data")
    (tmp_path / "data" / file).write_text(content, encoding="latin-1")
    with pytest.raises(SettingError, match=said):
        prepared(tmp_path, SMALL_COCO, *words)


def test_numbers_of_classes_in_yolo(tmp_path):
    """Numbers as text are taken; a number that is none of them leaves the object out."""
    words = yolo_root(tmp_path / "data")
    (tmp_path / "data/data.yaml").write_text("names: {'0': ' fox ', 1: owl, 2: hen}")
    (tmp_path / "data/labels/val/2.txt").write_text("inf .5 .5 .1 .1\n0.5 .5 .5 .1 .1\n0 .5 .5 .2 .2\n9 .5 .5 .2 .2\n")
    _, lines = prepared(tmp_path, SMALL_COCO, *words)
    assert any("left out: 3 of a category that the file does not define" in line for line in lines)
    assert any("4 boxes: fox 2, owl 1, hen 1" in line for line in lines)


def test_lists_of_voc_with_classes_or_suffixes(tmp_path):
    words = voc_root(tmp_path / "data")
    lists = tmp_path / "data/ImageSets/Main"
    names = (lists / "train.txt").read_text().split()
    (lists / "train.txt").write_text("".join(f"{name}  {sign}\r\n" for name, sign in zip(names, ("1", "-1", "0"))))
    (lists / "val.txt").write_text("".join(f"{name}.jpg\n" for name in names))
    (tmp_path / "data/JPEGImages/2.jpg").rename(tmp_path / "data/JPEGImages/2.JpG")
    _, lines = prepared(tmp_path, SMALL_COCO, *words)
    assert any("trains on 2 of 3 images" in line for line in lines)
    (lists / "val.txt").write_text("f\xf6x", encoding="latin-1")
    with pytest.raises(SettingError, match=r"val\.txt is not text in UTF-8"):
        prepared(tmp_path, SMALL_COCO, *words)


def test_a_comparison_passes_them_on(tmp_path):
    words = yolo_root(tmp_path / "data")
    line = ["--config", SMALL_COCO, "--init", "a=none", "--out", str(tmp_path / "out"), *words, "--classes", "owl"]
    grid = grid_of(compare_parser().parse_args(line))
    fixed, _ = shared_identity(grid)
    assert set(fixed["data"]) == {"train_dataloader.dataset", "val_dataloader.dataset"}
    run = command(grid, None, "all", 0, 4)
    assert run[run.index("--yolo-root") :][:4] == [*words, "--classes", "owl"]
    (tmp_path / "data/labels/val/2.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    assert shared_identity(grid)[0]["data"] == fixed["data"]  # a fox, which is not chosen
    (tmp_path / "data/labels/val/2.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    assert shared_identity(grid)[0]["data"] != fixed["data"]
