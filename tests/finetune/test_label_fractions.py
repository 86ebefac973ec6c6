"""Parts of a train set's labels: the same anywhere, nested, and in files that MMDetection reads."""

import hashlib
import itertools
import json
import random
import xml.etree.ElementTree as ElementTree
from fractions import Fraction
from pathlib import Path

import pytest
from mmengine.config import Config

from densessl.errors import SettingError
from densessl.finetune.config.annotations import Box
from densessl.finetune.config.label_fractions import Spec, choose, parse_labels, rank, set_labels
from tests.finetune.voc_coco_fixtures import write_coco, write_voc

NAMES = [f"photo-{i:03d}.jpg" for i in range(250)]
FRACTIONS = ("1%", "2%", "5%", "10%", "37.5%", "100%")


def file_of(names=NAMES, classes=("fox", "owl")) -> dict[str, list[Box]]:
    """Up to three boxes of each class in each image."""
    draws = random.Random(0)
    return {
        name: [
            Box(kind, f"{name}{kind}{k}", 10 * c + k)
            for c, kind in enumerate(classes)
            for k in range(draws.randrange(4))
        ]
        for name in sorted(names)
    }


def by_hash(name: str, seed: int = 0) -> str:
    return hashlib.sha256(f"{seed}||{name}".encode()).hexdigest()


def chosen(text: str, *files: dict[str, list[Box]], seed: int = 0) -> dict:
    return choose(parse_labels(text), seed, files)


def test_the_order_is_that_of_a_hash_of_seed_and_name():
    """Written out, so that it can be seen to be the same on every platform, in every version."""
    assert [name for _, name in rank([(0, name) for name in NAMES], 0)][:5] == [
        "photo-241.jpg",
        "photo-136.jpg",
        "photo-247.jpg",
        "photo-176.jpg",
        "photo-135.jpg",
    ]
    assert [name for _, name in rank([(0, name) for name in NAMES], 7)] == sorted(NAMES, key=lambda n: by_hash(n, 7))


@pytest.mark.parametrize(("text", "images"), zip(FRACTIONS, (2, 5, 12, 25, 93, 250)))
def test_a_share_is_so_many_images_with_all_their_labels(text, images):
    part = chosen(text, file_of())
    assert len(part) == images and set(part.values()) == {None}


@pytest.mark.parametrize("texts", [FRACTIONS, ("1-shot", "2-shot", "5-shot", "30-shot"), ("3-images", "9-images")])
def test_smaller_parts_lie_in_larger_ones_and_seeds_differ(texts):
    def labels(text, seed=0):
        part = chosen(text, file_of(), seed=seed)
        return {(image, stays) for image, kept in part.items() for stays in (kept if kept is not None else [None])}

    for small, large in itertools.pairwise(texts):
        assert labels(small) < labels(large)
    assert labels(texts[0]) != labels(texts[0], seed=1)


@pytest.mark.parametrize("text", ["10%", "5-shot", "20-images"])
def test_the_order_in_the_file_does_not_matter(text):
    ordered = file_of()
    names = list(ordered)
    random.Random(1).shuffle(names)
    shuffled = {name: ordered[name][::-1] for name in names}
    assert list(chosen(text, ordered).items()) == list(chosen(text, shuffled).items())


@pytest.mark.parametrize("shots", [1, 5, 30])
def test_shots_are_exactly_so_many_boxes_of_every_class(shots):
    file = file_of()
    part = chosen(f"{shots}-shot", file)
    kept = [box.name for (_, image), stays in part.items() for box in file[image] if box.index in stays]
    assert kept.count("fox") == kept.count("owl") == shots == len(kept) / 2
    assert all(part.values())  # no image without a box


def test_of_a_rare_class_all_boxes_are_taken():
    file = {**file_of(classes=("fox",)), "rare": [Box("hen", "a", 0), Box("hen", "b", 1)]}
    part = chosen("5-shot", file)
    assert part[0, "rare"] == {0, 1} and sum(len(stays) for stays in part.values()) == 7


def test_a_part_of_two_files_is_one_of_their_union():
    one, two = file_of(NAMES[:100]), file_of(NAMES[100:])
    apart, together = chosen("10%", one, two), chosen("10%", file_of())
    assert [name for _, name in apart] == [name for _, name in together]
    assert {number for number, _ in apart} == {0, 1}
    assert all(name in (one, two)[number] for number, name in apart)


def test_equal_names_in_two_files_are_two_images():
    assert list(chosen("100%", file_of(["a"]), file_of(["a"]))) == [(0, "a"), (1, "a")]


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("10", "10%"),
        ("30shot", "30-shot"),
        ("30 shots", "30-shot"),
        ("100images", "100-images"),
        ("500%", "100%"),
        ("0-shot", "1-shot"),
        ("all", "10%"),
        ("-5%", "5%"),
    ],
)
def test_other_words_are_refused_with_the_nearest(text, near):
    with pytest.raises(SettingError, match=f"found {text!r}, expected a share, shots or images; .*{near}"):
        parse_labels(text)


def test_shares_are_exact():
    assert parse_labels("12.5%") == Spec("%", Fraction(25, 2))
    assert len(chosen("29%", file_of(NAMES[:100]))) == 29  # 0.29 * 100 is 28.999… in floating point
    with pytest.raises(SettingError, match="found 251-images, expected at most 250-images"):
        chosen("251-images", file_of())


def coco_config(root: Path, **dataset) -> Config:
    leaf = dict(
        type="CocoDataset",
        data_root=str(root),
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017/"),
        metainfo=dict(classes=("fox", "owl")),
        pipeline=[],
        **dataset,
    )
    return Config(dict(default_scope="mmdet", train_dataloader=dict(dataset=dict(type="RepeatDataset", dataset=leaf))))


def voc_config(root: Path, years: tuple[str, ...], classes=("fox", "owl")) -> Config:
    parts = [
        dict(
            type="XMLDataset",
            data_root=str(root),
            ann_file=f"{year}/ImageSets/Main/trainval.txt",
            data_prefix=dict(sub_data_root=f"{year}/"),
            metainfo=dict(classes=classes),
            pipeline=[],
        )
        for year in years
    ]
    dataset = dict(type="RepeatDataset", times=3, dataset=dict(type="ConcatDataset", datasets=parts))
    return Config(dict(default_scope="mmdet", train_dataloader=dict(dataset=dataset)))


def built(leaf):
    """Image and boxes, by class number, that MMDetection reads: of a box those that are not ignored."""
    from mmdet.registry import DATASETS
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset = DATASETS.build(leaf)
    found = {}
    for info in map(dataset.get_data_info, range(len(dataset))):
        labels = [each["bbox_label"] for each in info["instances"] if not each["ignore_flag"]]
        found[Path(info["img_path"]).name] = labels
    return found


@pytest.mark.det
@pytest.mark.parametrize("text", ["50%", "3-shot"])
def test_mmdetection_reads_the_part_of_a_coco_file(tmp_path, text):
    source = write_coco(tmp_path / "coco", images=8, crowd=True)
    whole = built(coco_config(source).train_dataloader.dataset.dataset)
    cfg = coco_config(source)
    lines = set_labels(cfg, text, 3, tmp_path / "labels")
    part = built(cfg.train_dataloader.dataset.dataset)
    record = json.loads((tmp_path / "labels" / f"{text.replace('%', 'percent')}-seed3.json").read_text())
    counts = [sum(labels.count(i) for labels in part.values()) for i in range(2)]
    assert record["labels"] == text and record["seed"] == 3 and record["of"] == 8
    assert record["images"] == len(part) and list(record["boxes"].values()) == counts
    assert f"{len(part)} of 8 images" in lines[0] and f"fox {counts[0]}, owl {counts[1]}" in lines[1]
    content = json.loads(Path(cfg.train_dataloader.dataset.dataset.ann_file).read_text())
    crowds = sum(each["iscrowd"] for each in content["annotations"])
    assert [each["name"] for each in content["categories"]] == ["fox", "owl"]
    if text == "50%":
        first = sorted(whole, key=lambda name: by_hash(name, 3))[:4]
        assert part == {name: whole[name] for name in first} and crowds == 4
    else:
        assert counts == [3, 3] and crowds == 0


@pytest.mark.det
def test_files_are_the_same_bytes_each_time_whatever_the_order_of_the_source(tmp_path):
    source = write_coco(tmp_path / "coco", images=9)
    path = source / "annotations/instances_train2017.json"

    def write(folder):
        for text in ("30%", "2-shot"):
            set_labels(coco_config(source), text, 0, tmp_path / folder)
        return {file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()}

    first = write("a")
    assert first == write("b") and len(first) == 4
    record = json.loads(first["30percent-seed0.json"])
    name = record["parts"][0]["files"]["ann_file"]
    assert name == "instances_train2017.30percent-seed0.json"
    assert record["parts"][0]["sha256"]["ann_file"] == hashlib.sha256(first[name]).hexdigest()
    assert record["parts"][0]["source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    content = json.loads(path.read_text())
    for key in ("images", "annotations"):
        random.Random(2).shuffle(content[key])
    path.write_text(json.dumps(content))
    again = write("c")
    del again["30percent-seed0.json"], again["2-shot-seed0.json"]  # they have the hash of the source
    assert all(first[name] == content for name, content in again.items())


@pytest.mark.det
@pytest.mark.parametrize("text", ["25%", "3-shot"])
def test_mmdetection_reads_the_part_of_two_voc_years(tmp_path, text):
    years = ("VOC2007", "VOC2012")
    source = write_voc(tmp_path / "voc", years=years, images=6, difficult=True)
    cfg = voc_config(source, years)
    lines = set_labels(cfg, text, 0, tmp_path / "labels")
    parts = [built(leaf) for leaf in cfg.train_dataloader.dataset.dataset.datasets]
    union = {name: boxes for part in parts for name, boxes in part.items()}
    assert all(name.startswith(year[3:]) for part, year in zip(parts, years) for name in part)
    if text == "25%":
        names = sorted((f"{year[3:]}_{i:06d}" for year in years for i in range(6)), key=by_hash)
        assert set(union) == {f"{name}.jpg" for name in names[:3]}
        assert all(boxes == [0, 1] for boxes in union.values())
    else:
        flat = [label for boxes in union.values() for label in boxes]
        assert flat.count(0) == flat.count(1) == 3
        kept = [ElementTree.parse(file) for file in (tmp_path / "labels").rglob("*.xml")]
        assert sum(len(tree.findall("object")) for tree in kept) == 6  # no difficult one among them
    assert f"{len(union)} of 12 images" in lines[0]
    images = {name: Path(source, f"VOC{name[:4]}", "JPEGImages", name) for name in union}
    assert all(path.is_file() for path in images.values())


@pytest.mark.det
def test_classes_without_boxes_and_with_too_few_are_said(tmp_path):
    cfg = voc_config(write_voc(tmp_path / "voc"), ("VOC2007",), classes=("fox", "owl", "hen"))
    lines = set_labels(cfg, "9-shot", 0, tmp_path / "labels")
    assert any("classes without any box: hen" in line for line in lines)
    assert any("classes with fewer than 9: fox, owl" in line for line in lines)


@pytest.mark.det
def test_a_data_set_behind_two_pipelines_has_one_part(tmp_path):
    source = write_coco(tmp_path / "coco", images=6)
    leaf = coco_config(source).train_dataloader.dataset.dataset
    cfg = coco_config(source)
    cfg.train_dataloader.dataset = dict(type="ConcatDataset", datasets=[leaf, dict(leaf)])
    assert "3 of 6 images" in set_labels(cfg, "50%", 0, tmp_path / "labels")[0]
    first, second = cfg.train_dataloader.dataset.datasets
    assert first.ann_file == second.ann_file == str(tmp_path / "labels/instances_train2017.50percent-seed0.json")


@pytest.mark.det
def test_lists_of_segmentation_have_shares_but_no_shots(tmp_path):
    pytest.importorskip("mmseg")
    (tmp_path / "train.txt").write_text("".join(f"{name[:-4]}\n" for name in NAMES[:20]))
    leaf = dict(type="PascalVOCDataset", data_root=str(tmp_path), ann_file="train.txt", data_prefix=dict(img_path="x"))
    cfg = Config(dict(default_scope="mmseg", train_dataloader=dict(dataset=leaf)))
    with pytest.raises(SettingError, match=r"train\.txt lists no boxes; say N% or N-images"):
        set_labels(cfg, "5-shot", 0, tmp_path / "labels")
    set_labels(cfg, "10%", 0, tmp_path / "labels")
    first = sorted((name[:-4] for name in NAMES[:20]), key=by_hash)
    assert Path(cfg.train_dataloader.dataset.ann_file).read_text().split() == first[:2]


@pytest.mark.det
@pytest.mark.parametrize(
    ("leaf", "said"),
    [
        (dict(type="CityscapesDataset", _scope="mmseg"), "mmseg's CityscapesDataset with ann_file=''"),
        (dict(type="OpenImagesDataset", _scope="mmdet", ann_file="x.csv"), "mmdet's OpenImagesDataset with"),
        (dict(type="Nonsense", _scope="mmdet", ann_file="x"), "is Nonsense with"),
    ],
)
def test_other_kinds_of_labels_are_refused_by_name(tmp_path, leaf, said):
    scope = leaf.pop("_scope")
    pytest.importorskip(scope)
    cfg = Config(dict(default_scope=scope, train_dataloader=dict(dataset=leaf)))
    with pytest.raises(SettingError, match=said):
        set_labels(cfg, "10%", 0, tmp_path)


@pytest.mark.det
def test_a_file_of_another_format_is_named(tmp_path):
    source = write_coco(tmp_path / "coco")
    (source / "annotations/instances_train2017.json").write_text('{"images": []}')
    with pytest.raises(SettingError, match=r"instances_train2017\.json is not in COCO's format of boxes: KeyError"):
        set_labels(coco_config(source), "10%", 0, tmp_path)
