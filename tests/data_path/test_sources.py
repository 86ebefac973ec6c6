import copy
import itertools
import json
import multiprocessing
import os
import pickle
import random
import re
from pathlib import Path

import pytest

from densessl.data.path_table import PathTable
from densessl.data.sources import DataNotFound, list_images, remedies

MANY = 2_000_000
NAMES = ["a.jpg", "", "Zürich/東京 🦒.png", "x" * 5000, "line\nbreak.jpg", "latin1-\udce9.jpg"]


# PathTable


def private_megabytes() -> float:
    fields = re.findall(r"^Private_\w+: +(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    return sum(map(int, fields)) / 1024


def worker(table: PathTable, answers) -> None:
    draw = random.Random(0)
    wrong = sum(table[index] != many(index) for index in draw.sample(range(len(table)), min(5000, len(table))))
    answers.put((wrong, private_megabytes()))


def many(index: int) -> str:
    return f"train2017/{index % 1000:04d}/{index:012d}.jpg"


@pytest.fixture(scope="module")
def big_table():
    return PathTable(map(many, range(MANY)))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_two_million_paths_cost_a_worker_almost_nothing(big_table, start):
    context = multiprocessing.get_context(start)
    used = []
    for table in (PathTable(), big_table):
        answers = context.SimpleQueue()
        process = context.Process(target=worker, args=(table, answers))
        process.start()
        wrong, megabytes = answers.get()
        process.join()
        assert process.exitcode == 0 and wrong == 0
        used.append(megabytes)
    print(f"{start}: {used[0]:.1f} MB with an empty table, {used[1]:.1f} MB with {MANY} paths")
    assert used[1] - used[0] < 50
    assert big_table[MANY - 1] == many(MANY - 1)  # the worker's end has not taken the file away


def test_path_table_is_a_sequence():
    table = PathTable(iter(NAMES))
    assert list(table) == NAMES
    assert len(table) == len(NAMES) and table[-1] == NAMES[-1]
    assert table[2].encode() == NAMES[2].encode()
    for index in (len(NAMES), -len(NAMES) - 1):
        with pytest.raises(IndexError):
            table[index]
    assert list(PathTable()) == [] and not PathTable()
    with pytest.raises(TypeError):
        table[0] = "other.jpg"


def test_path_table_reads_its_paths_one_by_one():
    alive = 0

    class Counted(str):
        def __init__(self, _):
            nonlocal alive
            alive += 1
            assert alive <= 2

        def __del__(self):
            nonlocal alive
            alive -= 1

    assert len(PathTable(Counted(f"{number}.jpg") for number in range(100))) == 100


def files_of_tables() -> set[str]:
    links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return {os.readlink(link) for link in links if os.path.islink(link) and "densessl-paths-" in os.readlink(link)}


def test_only_the_creator_removes_the_file():
    before = files_of_tables()
    table = PathTable(NAMES)
    (name,) = files_of_tables() - before
    received = pickle.loads(pickle.dumps(table))
    assert list(received) == NAMES and copy.deepcopy(table) is table
    child = os.fork()
    if not child:
        del table  # collected, in a process that is not the creator
        os._exit(0)
    os.waitpid(child, 0)
    assert os.path.exists(name) and list(table) == NAMES
    del table
    assert not os.path.exists(name)
    assert list(received) == NAMES
    del received
    assert files_of_tables() == before


def test_a_failing_source_of_paths_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def paths():
        yield "a.jpg"
        raise PermissionError("folder")

    with pytest.raises(PermissionError):
        PathTable(paths())
    assert os.listdir(tmp_path) == []


# Sources


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def coco(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    return path


def test_folder_is_listed_recursively_and_sorted(tmp_path):
    expected = ["B.JPEG", "a.jpg", "a/1.png", "a/b/2.WebP", "a0.tif", "z/ü.bmp", "z.tiff"]
    touch(tmp_path, *expected, "notes.txt", ".hidden.jpg", ".cache/3.jpg", "a/._1.png", "jpg")
    for _ in range(2):
        found = list_images(tmp_path)
        assert found.root == str(tmp_path)
        assert list(found.paths) == sorted(expected)


def test_folder_links_are_followed_once(tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    touch(data, "a/1.jpg")
    touch(elsewhere, "2.jpg")
    (data / "a" / "loop").symlink_to(data)
    (data / "link").symlink_to(elsewhere)
    (data / "link2").symlink_to(elsewhere)
    (elsewhere / "self").symlink_to(elsewhere)
    (data / "3.jpg").symlink_to(elsewhere / "2.jpg")
    assert list(list_images(data).paths) == ["3.jpg", "a/1.jpg", "link/2.jpg"]


def test_relative_source_becomes_an_absolute_root(tmp_path, monkeypatch):
    touch(tmp_path, "train/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert list_images("train").root == str(tmp_path / "train")
    monkeypatch.chdir("/")
    assert list_images("train", root=tmp_path).root == str(tmp_path / "train")


def test_folder_without_images_tells_what_it_holds(tmp_path):
    touch(tmp_path, "a.txt", "b/c.TXT", "d.gif", "README")
    with pytest.raises(DataNotFound) as error:
        list_images(tmp_path)
    text = str(error.value)
    assert str(tmp_path) in text
    assert "4 files there (2 .txt, 1 without extension, 1 .gif)" in text
    assert ".bmp, .jpeg, .jpg, .png, .tif, .tiff, .webp" in text


def test_missing_data_set_tells_where_it_looked(tmp_path, monkeypatch):
    touch(tmp_path, "coco/train2017/1.jpg")
    with pytest.raises(FileNotFoundError) as error:
        list_images(tmp_path / "coco" / "trian2017" / "images", root=tmp_path / "other")
    text = str(error.value)
    assert type(error.value) is DataNotFound
    assert str(tmp_path / "coco" / "trian2017" / "images") in text
    assert f"({tmp_path / 'coco'} has train2017)" in text
    assert "--" not in text  # a command adds its own options
    with (
        pytest.raises(DataNotFound, match=r"train2017\)\. Give --data$"),
        remedies(source="Give --data"),
    ):
        list_images(tmp_path / "coco" / "trian2017" / "images")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataNotFound, match=f"{tmp_path}/list.txt or {tmp_path}/other/list.txt"):
        list_images("list.txt", root="other")
    assert str(pickle.loads(pickle.dumps(error.value))) == text


def test_list_file(tmp_path):
    touch(tmp_path, "images/b.jpg", "images/a b.jpg", "lists/c.jpg", "images/ü.jpg")
    lines = "\ufeff# training images\r\n\r\nb.jpg\r\n  a b.jpg  \nü.jpg"
    (tmp_path / "lists" / "train.txt").write_bytes(lines.encode())
    found = list_images(tmp_path / "lists" / "train.txt", root=tmp_path / "images")
    assert found.root == str(tmp_path / "images")
    assert list(found.paths) == ["b.jpg", "a b.jpg", "ü.jpg"]
    (tmp_path / "lists" / "own.LST").write_text(f"c.jpg\n{tmp_path}/images/b.jpg\n")
    found = list_images(tmp_path / "lists" / "own.LST")
    assert found.root == str(tmp_path / "lists")
    assert [os.path.join(found.root, path) for path in found.paths] == [
        f"{tmp_path}/lists/c.jpg",
        f"{tmp_path}/images/b.jpg",
    ]


def test_missing_entries_are_reported_with_the_places_searched(tmp_path):
    touch(tmp_path, "a.jpg")
    listing = tmp_path / "train.txt"
    listing.write_text("a.jpg\nb.jpg 0\n")
    with pytest.raises(
        DataNotFound, match=f"train.txt names 'b.jpg 0', which is not a file under {tmp_path}, the folder that"
    ):
        list_images(listing)
    listing.write_text("# nothing\n\n")
    with pytest.raises(DataNotFound, match=r"train.txt names no image"):
        list_images(listing)
    source = coco(tmp_path / "annotations" / "instances_val.json", "a.jpg", "c.jpg")
    with pytest.raises(DataNotFound, match=f"names 'c.jpg', which is not a file under {tmp_path}, .*;") as error:
        list_images(source)
    searched = set(re.findall(rf"{tmp_path}/([\w/]*)[., ]", str(error.value)))
    assert searched >= {"annotations/val", "annotations", "val", "images/val", "images"}


@pytest.mark.parametrize("place", ["train2017", "images/train2017", ".", "images", "annotations", "annotations/images"])
def test_coco_images_are_found_near_the_json(tmp_path, place):
    touch(tmp_path / place, "2.jpg", "1.jpg")
    touch(tmp_path / "val2017", "2.jpg")
    source = coco(tmp_path / "annotations" / "instances_train2017.json", "2.jpg", "1.jpg")
    found = list_images(source)
    assert found.root == str(tmp_path / place)
    assert list(found.paths) == ["2.jpg", "1.jpg"]
    assert list_images(source, root=tmp_path / place).root == found.root


def test_coco_split_folder_wins_over_others(tmp_path):
    touch(tmp_path, "val/1.jpg", "images/1.jpg", "1.jpg")
    assert list_images(coco(tmp_path / "annotations" / "val.json", "1.jpg")).root == str(tmp_path / "val")


def test_coco_images_beside_the_json_win_over_its_parents(tmp_path):
    touch(tmp_path, "train/1.jpg", "1.jpg")
    assert list_images(coco(tmp_path / "train" / "_annotations.coco.json", "1.jpg")).root == str(tmp_path / "train")
    touch(tmp_path, "val/1.jpg", "data/1.jpg")
    assert list_images(coco(tmp_path / "data" / "val.json", "1.jpg")).root == str(tmp_path / "data")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"data\.json is not JSON"),
        ("[]", r"data\.json is not in COCO format: .*found a list"),
        ('{"info": {}, "pictures": []}', r"expected a list under 'images', found keys \['info', 'pictures'\]"),
        ('{"images": [{"file_name": "a.jpg"}, {"id": 2}]}', r"images\[1\] has no 'file_name'"),
    ],
)
def test_other_json_is_refused(tmp_path, content, message):
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        list_images(tmp_path / "data.json")


def test_other_files_are_refused(tmp_path):
    touch(tmp_path, "one.jpg")
    with pytest.raises(
        ValueError, match=r"one\.jpg: expected a folder, a list file \(\.txt or \.lst\) or a COCO \.json"
    ):
        list_images(tmp_path / "one.jpg")


def test_only_the_first_entries_are_looked_up(tmp_path):
    names = [f"{number}.jpg" for number in range(20)]
    touch(tmp_path, *itertools.islice(names, 8))
    (tmp_path / "all.txt").write_text("\n".join(names))
    assert len(list_images(tmp_path / "all.txt").paths) == 20
