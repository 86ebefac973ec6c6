"""Classes of data sets against the names in their files, and what tells annotations apart."""

import json

import pytest

from densessl.errors import SettingError
from densessl.finetune.config.annotations import check_classes, labels_digest
from densessl.finetune.config.data_files import leaves
from densessl.finetune.config.label_fractions import set_labels
from tests.finetune.test_label_fractions import built, coco_config, voc_config
from tests.finetune.voc_coco_fixtures import write_coco, write_voc

pytestmark = pytest.mark.det


def with_classes(cfg, *classes, **changes):
    for leaf in leaves(cfg, "train_dataloader"):
        leaf.cfg.update(metainfo=dict(classes=classes), **changes)
    return cfg


@pytest.mark.parametrize("kind", ["coco", "voc"])
def test_classes_that_files_lack(tmp_path, kind):
    if kind == "coco":
        cfg = coco_config(write_coco(tmp_path / "data"))
    else:
        cfg = voc_config(write_voc(tmp_path / "data"), ("VOC2007",))
    assert check_classes(cfg) == []
    (line,) = check_classes(with_classes(cfg, "fox", "hen", " owl"))
    assert line.endswith("has no class named 'hen', ' owl'")
    said = r"has none of the data set's 1 classes 'hen'; it has 'fox', 'owl'\. Set train_dataloader\..*classes.*CLASSES"
    with pytest.raises(SettingError, match=said):
        check_classes(with_classes(cfg, "hen"))
    with pytest.raises(SettingError, match="none of the data set's 7 classes 'a', 'b', 'c', 'd', 'e' and 2 more;"):
        check_classes(with_classes(cfg, *"abcdefg"))


def test_categories_are_found_wherever_they_are_in_the_file(tmp_path):
    root = write_coco(tmp_path / "data")
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    for order in (sorted(content), sorted(content, reverse=True)):
        path.write_text(json.dumps({key: content[key] for key in order}))
        assert check_classes(coco_config(root)) == []


def test_a_data_set_that_needs_all_of_its_classes(tmp_path):
    import densessl.finetune.categories  # noqa: F401  registers it

    cfg = coco_config(write_coco(tmp_path / "data"))
    with pytest.raises(SettingError, match=r"has no class named 'hen'; it has 'fox', 'owl'\. Set"):
        check_classes(with_classes(cfg, "fox", "hen", type="densessl.NamedCocoDataset"))


def test_a_part_of_a_data_set_of_one_class(tmp_path):
    import densessl.finetune.categories  # noqa: F401

    cfg = coco_config(write_coco(tmp_path / "data", images=8))
    with_classes(cfg, "object", type="densessl.OneClassCocoDataset")
    assert check_classes(cfg) == []
    lines = set_labels(cfg, "50%", 0, tmp_path / "labels")
    assert "4 of 8 images" in lines[0] and lines[1] == "--labels: 8 boxes: object 8"
    (leaf,) = leaves(cfg, "train_dataloader")
    assert [set(labels) for labels in built(leaf.cfg).values()] == [{0}] * 4


def test_an_xml_file_is_of_the_annotations(tmp_path):
    root = write_voc(tmp_path / "data")
    (leaf,) = leaves(voc_config(root, ("VOC2007",)), "train_dataloader")
    before, listed = labels_digest(leaf), (root / "VOC2007/ImageSets/Main/trainval.txt").read_text().split()
    path = root / f"VOC2007/Annotations/{listed[-1]}.xml"
    path.write_text(path.read_text().replace("<xmax>", "<xmax>1"))
    assert labels_digest(leaf) != before
    (stranger,) = leaves(voc_config(tmp_path / "nowhere", ("VOC2007",)), "train_dataloader")
    assert labels_digest(stranger) is None
