"""Each fault of a file, one by one: what is mended, what is left out, what is refused."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from densessl.errors import SettingError
from densessl.finetune.labels import cleaning
from densessl.finetune.labels.cleaning import clean
from densessl.finetune.labels.coco import category_names, read_coco
from densessl.finetune.labels.masks import usable
from densessl.finetune.labels.sizes import size_of
from densessl.finetune.labels.voc import read_voc

BOX = [10, 20, 30, 40]  # x, y, width, height
CORNERS = [10, 20, 40, 60]


def content(*annotations: dict, **photo) -> dict:
    """A json of one image of 160 x 120 with a good box of class fox, and the given annotations."""
    entries = [dict(bbox=[100, 5, 20, 20]), *annotations]
    base = dict(image_id=1, category_id=1, iscrowd=0)
    return dict(
        images=[{**dict(id=1, file_name="a.jpg", width=160, height=120), **photo}],
        categories=[dict(id=1, name="fox"), dict(id=2, name="owl")],
        annotations=[
            {**base, "id": i, "area": 400.0 if i == 1 else 1200.0, **entry} for i, entry in enumerate(entries, 1)
        ],
    )


def cleaned(tmp_path, text: dict, size=(160, 120), **how):
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(text))
    return clean(read_coco(file), ["fox"], lambda name: size, **how)


@pytest.mark.parametrize(
    ("fault", "reason", "corners"),
    [
        (dict(bbox=[40, 60, -30, -40]), cleaning.SWAPPED, CORNERS),
        (dict(bbox=[-20, 20, 60, 40]), cleaning.CLIPPED, [0, 20, 40, 60]),
        (dict(bbox=[135, 85, 30, 40]), cleaning.CLIPPED, [135, 85, 160, 120]),
        (dict(bbox=["10", "20", "30", "40"]), "boxes of text turned into numbers", CORNERS),
        (dict(bbox=[], segmentation=[[10, 20, 40, 20, 40, 60]]), cleaning.FROM_MASK, CORNERS),
        (dict(bbox=BOX, area=0), cleaning.AREA, CORNERS),
        (dict(bbox=BOX, area=math.nan), cleaning.AREA, CORNERS),
        (dict(bbox=BOX, area=99999), cleaning.AREA, CORNERS),
        (dict(bbox=BOX, ignore=1), "marked as ignored, made ignored regions", CORNERS),
        (dict(bbox=BOX, iscrowd="0"), "iscrowd set", CORNERS),
        (dict(bbox=BOX, id=1), "annotation ids renumbered", CORNERS),
        (dict(bbox=BOX, image_id="1"), "image ids of another type matched", CORNERS),
        (dict(bbox=BOX, image_id="a.jpg"), "image ids of another type matched", CORNERS),
        (dict(bbox=BOX, category_id="1"), "category ids of another type matched", CORNERS),
    ],
)
def test_what_is_mended(tmp_path, fault, reason, corners):
    result = cleaned(tmp_path, content(fault))
    assert reason in result.mended and not result.left_out
    assert result.labels.objects.corners[1].tolist() == corners
    area = np.prod(np.subtract(corners[2:], corners[:2]))
    assert result.labels.objects.area[1] == (area if reason == cleaning.AREA else 1200)
    assert bool(result.labels.objects.ignore[1]) == ("ignore" in fault)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (dict(bbox=[200, 20, 30, 40]), cleaning.OUTSIDE),
        (dict(bbox=[-50, 20, 30, 40]), cleaning.OUTSIDE),
        (dict(bbox=[10, 20, 0, 40]), cleaning.FLAT),
        (dict(bbox=[10, 20, 0.5, 40]), cleaning.SMALL),
        (dict(bbox=[159.5, 20, 30, 40]), cleaning.SMALL),
        (dict(bbox=[math.nan, 20, 30, 40]), cleaning.NOT_FINITE),
        (dict(bbox=[10, 20, math.inf, 40]), cleaning.NOT_FINITE),
        (dict(bbox=["left", 20, 30, 40]), cleaning.NOT_FINITE),
        (dict(bbox=[]), cleaning.NO_BOX),
        (dict(bbox=None), cleaning.NO_BOX),
        (dict(bbox=[1, 2, 3]), cleaning.NO_BOX),
        (dict(bbox=[100, 5, 20, 20]), cleaning.COPIES),
        (dict(bbox=BOX, category_id=7), cleaning.UNKNOWN),
        (dict(bbox=BOX, category_id=2), cleaning.OTHER),
        (dict(bbox=BOX, image_id=99), cleaning.NOT_LISTED),
    ],
)
def test_what_is_left_out(tmp_path, fault, reason):
    result = cleaned(tmp_path, content(fault))
    assert result.left_out == Counter({reason: 1})
    assert result.labels.objects.corners.tolist() == [[100, 5, 120, 25]]


def test_relative_boxes_become_pixels_if_all_are_so(tmp_path):
    text = content(dict(bbox=[0.0625, 0.25, 0.25, 0.5], segmentation=[[0.0, 0.0, 0.5, 0.0, 0.5, 0.5]]))
    text["annotations"][0]["bbox"] = [0.5, 0.5, 0.5, 0.5]
    result = cleaned(tmp_path, text, masks=True, boxes_as_masks=True)
    assert result.mended[cleaning.RELATIVE] == 2
    assert result.labels.objects.corners.tolist() == [[80, 60, 160, 120], [10, 30, 50, 90]]
    assert result.labels.objects.area.tolist() == [4800, 2400]
    assert result.labels.objects.masks[1] == [[0, 0, 80, 0, 80, 60]]
    text["annotations"].append({**text["annotations"][0], "id": 3, "bbox": BOX})
    with pytest.raises(SettingError, match=r"labels.json: 2 of 3 boxes are relative, from 0 to 1 \(first in a.jpg\)"):
        cleaned(tmp_path, text)


@pytest.mark.parametrize("size", [dict(width=0), dict(width=None), dict(height="none")])
def test_sizes_that_the_file_lacks_are_read(tmp_path, size):
    result = cleaned(tmp_path, content(dict(bbox=[100, 20, 90, 40]), **size), size=(180, 120))
    assert result.mended == Counter({cleaning.SIZES: 1, cleaning.CLIPPED: 1})
    assert result.labels.photos[0][1:3] == (180, 120)


def test_a_wrong_size_does_not_cut_good_boxes(tmp_path):
    result = cleaned(tmp_path, content(dict(bbox=[10, 100, 30, 50]), width=120, height=120), size=(120, 160))
    assert result.mended == Counter({cleaning.TRUE_SIZES: 1}) and result.labels.photos[0][1:3] == (120, 160)


def test_sizes_are_those_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    assert size_of(tmp_path / "a.jpg") == (30, 40)


COMPRESSED = dict(size=[120, 160], counts="T3b1V2:R]b0")
RUNS = dict(size=[120, 160], counts=[100, 50, 120 * 160 - 150])


@pytest.mark.parametrize(
    ("mask", "good"),
    [
        ([[1, 2, 3, 4, 5, 6]], [[1, 2, 3, 4, 5, 6]]),
        ([1, 2, 3, 4, 5, 6], [[1, 2, 3, 4, 5, 6]]),
        ([[[1, 2], [3, 4], [5, 6]]], [[1, 2, 3, 4, 5, 6]]),
        ([[1, 2, 3, 4], [1, 2, 3, 4, 5, 6]], [[1, 2, 3, 4, 5, 6]]),
        (RUNS, RUNS),
        (COMPRESSED, COMPRESSED),
        (dict(size=[120, 160], counts="zz##"), None),
        (dict(size=[120, 160], counts=COMPRESSED["counts"][:-1]), None),
        (dict(size=[120, 160], counts=COMPRESSED["counts"] + "1"), None),
        ([[1, 2, 3, 4, 5, 10**400]], None),
        (dict(size=[160, 120], counts=RUNS["counts"]), None),
        (dict(size=[120, 160], counts=[1, 2]), None),
        (dict(size=[120, 160]), None),
        ([[1, 2, 3, 4]], None),
        ([[1, 2, 3, 4, 5]], None),
        ([[1, 2, 3, 4, 5, math.nan]], None),
        ([["a"] * 6], None),
        ([[]], None),
        (None, None),
        ("mask", None),
    ],
)
def test_masks(mask, good):
    assert usable(mask, 160, 120)[0] == good


def test_masks_are_made_from_boxes_where_they_lack(tmp_path):
    polygon = [[100, 5, 120, 5, 120, 25]]
    text = content(dict(bbox=BOX, segmentation=[]), dict(bbox=[50, 20, 30, 40], iscrowd=1))
    text["annotations"][0]["segmentation"] = polygon
    result = cleaned(tmp_path, text, masks=True)
    assert result.without_masks == 1 and result.first[cleaning.RECTANGLES] == "a.jpg"
    result = cleaned(tmp_path, text, masks=True, boxes_as_masks=True)
    assert result.without_masks == 0 and result.mended[cleaning.RECTANGLES] == 2
    assert result.labels.objects.masks[:2] == [polygon, [[10, 20, 40, 20, 40, 60, 10, 60]]]
    assert cleaned(tmp_path, text).without_masks == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["images"].append(dict(c["images"][0], file_name="b.jpg")), "the image id '1' occurs 2 times"),
        (lambda c: c["images"].append(dict(c["images"][0], id=2)), "the file_name 'a.jpg' occurs 2 times"),
        (lambda c: c["images"].append(dict(c["images"][0], id=2, file_name="./a.jpg")), "'a.jpg' occurs 2 times"),
        (lambda c: c["images"].clear(), "lists no image"),
        (lambda c: c["categories"].append(dict(id=3, name="fox")), "the category name 'fox' occurs 2 times"),
        (lambda c: c["categories"].append(dict(id=1, name="hen")), "the category id '1' occurs 2 times"),
        (lambda c: c["images"][0].update(file_name="/etc/a.jpg"), "'/etc/a.jpg' is not in the folder of images"),
        (lambda c: c["images"][0].update(file_name="b/../../a.jpg"), "is not in the folder of images"),
        (lambda c: c["images"][0].pop("file_name"), "images.0 has file_name=None"),
        (lambda c: c.pop("categories"), "expected a list of dicts under 'categories'"),
        (lambda c: c["categories"][0].pop("name"), r"categories.0 has \['id'\], expected an id and a name"),
        (lambda c: c.update(annotations={}), "expected a list under 'annotations'"),
    ],
)
def test_what_is_refused(tmp_path, change, said):
    text = content()
    change(text)
    with pytest.raises(SettingError, match=said):
        cleaned(tmp_path, text)


def test_a_list_is_no_labels(tmp_path):
    with pytest.raises(SettingError, match="expected a dict, found a list"):
        cleaned(tmp_path, [])


def test_categories_are_read_in_the_order_of_their_ids(tmp_path):
    for ids, names in (((7, 3), ["owl", "fox"]), (("7", "3"), ["fox", "owl"])):
        text = dict(images=[], categories=[dict(id=i, name=n) for i, n in zip(ids, ("fox", "owl"))])
        (tmp_path / "a.json").write_text(json.dumps(text))
        assert category_names(tmp_path / "a.json") == names


@pytest.mark.parametrize(
    ("entry", "corners", "left_out", "mended"),
    [
        (
            "<bndbox><xmin>41</xmin><ymin>61</ymin><xmax>11</xmax><ymax>21</ymax></bndbox>",
            CORNERS,
            "",
            "corners swapped",
        ),
        (
            "<bndbox><xmin>0</xmin><ymin>21</ymin><xmax>41</xmax><ymax>61</ymax></bndbox>",
            [0, 20, 40, 60],
            "",
            "clipped",
        ),
        ("<bndbox><xmin>x</xmin><ymin>21</ymin><xmax>41</xmax><ymax>61</ymax></bndbox>", None, "not finite", ""),
        ("<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>11</xmax><ymax>61</ymax></bndbox>", None, "without extent", ""),
        ("<bndbox/>", None, "without a box", ""),
        ("", None, "without a box", ""),
    ],
)
def test_voc(tmp_path, entry, corners, left_out, mended):
    text = f"<annotation><object><name> fox </name><difficult>Unspecified</difficult>{entry}</object></annotation>"
    (tmp_path / "a.xml").write_text(text)
    labels = read_voc(tmp_path, ["a"], lambda name: tmp_path / f"{name}.xml")
    result = clean(labels, ["fox"], lambda name: (160, 120))
    assert result.labels.objects.corners.tolist() == ([corners] if corners else [])
    assert left_out in "".join(result.left_out) and bool(left_out) == bool(result.left_out)
    assert mended in "".join(result.mended)
    assert {cleaning.SIZES, "difficult set", "spaces around names removed"} <= set(result.mended)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: dict(info=dict(has="categories", categories=["a"]), **text),
        lambda text: text | dict(categories=[dict(each, name=f" {each['name']}") for each in text["categories"]]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_names_of_categories_are_found_in_any_valid_file(tmp_path, change, encoding):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(change(content())), encoding=encoding)
    assert category_names(file) == read_coco(file).names == ["fox", "owl"]


@pytest.mark.parametrize("key", ["image_id", "category_id"])
@pytest.mark.parametrize("value", [[1], {}, None, True])
def test_what_is_no_id_leaves_an_object_out(tmp_path, key, value):
    result = cleaned(tmp_path, content(dict(bbox=BOX, **{key: value})))
    assert result.left_out == {f"with a {key} that is no id": 1}


def test_numbers_of_hundreds_of_digits_are_not_finite(tmp_path):
    huge = 10**400
    text = content(dict(bbox=[1, 2, huge, 3]), dict(bbox=[huge, 2, 3, 3]), dict(bbox=BOX, area=huge), width=huge)
    result = cleaned(tmp_path, text)
    assert result.left_out == {cleaning.NOT_FINITE: 2}
    assert result.mended[cleaning.AREA] == 1 and result.mended[cleaning.SIZES] == 1


def test_ids_and_lists_that_stop_the_reader_are_mended(tmp_path):
    text = content() | dict(annotations=None)
    text["categories"][1]["id"] = [2]
    result = cleaned(tmp_path, text)
    assert result.mended == {"list of annotations added": 1, "category ids replaced by numbers": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<html><body/></html>", "found <html>, expected <annotation>"),
        ("<annotation xmlns='http://x'><object/></annotation>", "expected <annotation>"),
        ("<?xml version='1.0' encoding='foo-8'?><annotation/>", "unknown encoding"),
    ],
)
def test_other_xml_is_not_read_as_an_image_without_objects(tmp_path, text, said):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(SettingError, match=said):
        read_voc(tmp_path, ["a"], lambda name: tmp_path / f"{name}.xml")


def test_a_size_of_hundreds_of_digits_is_read_from_the_image(tmp_path):
    size = f"<size><width>{10**400}</width><height>120</height></size>"
    (tmp_path / "a.xml").write_text(f"<annotation>{size}</annotation>")
    labels = read_voc(tmp_path, ["a"], lambda name: tmp_path / f"{name}.xml")
    assert clean(labels, [], lambda name: (160, 120)).mended == {cleaning.SIZES: 1}


def test_an_image_that_cannot_be_read_is_left_to_the_run(tmp_path):
    """Its objects stay, so that they count as missed in evaluation."""
    text = content(dict(bbox=[700, 20, 30, 40]), width=0)
    (tmp_path / "a.json").write_text(json.dumps(text))
    result = clean(read_coco(tmp_path / "a.json"), ["fox"], lambda name: size_of(tmp_path / name))
    assert result.mended == {cleaning.UNREADABLE: 1} and not result.left_out
    assert result.labels.photos[0][1:3] == (730, 640)
