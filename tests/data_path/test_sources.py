import copy
import io
import itertools
import json
import multiprocessing
import os
import pickle
import random
import re
import tarfile
import zipfile
from pathlib import Path

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet
from torch.utils.data import DataLoader, Dataset

from densessl.data.decode import UnreadableImage, read_image
from densessl.data.path_table import PathTable
from densessl.data.sources import DataNotFound, list_images, remedies
from densessl.errors import SettingError

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
    touch(tmp_path, "a.txt", "b/c.TXT", "d.svg", "README")
    with pytest.raises(DataNotFound) as error:
        list_images(tmp_path)
    text = str(error.value)
    assert str(tmp_path) in text
    assert "4 files there (2 .txt, 1 without extension, 1 .svg)" in text
    assert ".jpeg, .jpg," in text and ".png," in text and ".webp" in text


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
    touch(tmp_path, "one.doc", "photos.tar.gz")
    with pytest.raises(ValueError, match=r"one\.doc: expected a folder, an archive \(\.zip, \.tar\), a list"):
        list_images(tmp_path / "one.doc")
    with pytest.raises(ValueError, match=r"photos\.tar\.gz: a compressed tar can be read from its beginning only"):
        list_images(tmp_path / "photos.tar.gz")
    with pytest.raises(ValueError, match="an empty list"):
        list_images([])


def test_an_image_is_a_data_set_of_one(tmp_path):
    touch(tmp_path, "one.jpg", "two.jpg")
    listed = list_images(tmp_path / "one.jpg")
    assert (listed.root, list(listed.paths)) == (str(tmp_path), ["one.jpg"])


def test_a_list_with_few_missing_files_is_taken(tmp_path):
    """What is missing is found when it is read, and counts as a bad image."""
    touch(tmp_path, "a.jpg", "c.jpg")
    (tmp_path / "all.txt").write_text("a.jpg\nb.jpg\nc.jpg\n")
    assert list(list_images(tmp_path / "all.txt").paths) == ["a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "id,File_Name,label\n1,1.jpg,x\n2,sub/2.png,y\n3,,z\n"),
        ("a.csv", "\ufeffpath\n1.jpg\nsub/2.png\n"),
        ("a.yaml", "- 1.jpg\n- sub/2.png\n"),
        ("a.yml", "names: [x]\nImages: [1.jpg, sub/2.png]\n"),
    ],
)
def test_tables_and_yaml_list_paths(tmp_path, name, content):
    touch(tmp_path, "1.jpg", "sub/2.png")
    (tmp_path / name).write_text(content)
    assert list(list_images(tmp_path / name).paths) == ["1.jpg", "sub/2.png"]


def test_a_parquet_lists_paths(tmp_path):
    touch(tmp_path, "1.jpg", "sub/2.png")
    table = pyarrow.table({"label": [1, 2, 3], "path": ["1.jpg", "sub/2.png", None]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert list(list_images(tmp_path / "a.parquet").paths) == ["1.jpg", "sub/2.png"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "id,label\n1,2\n", "expected a column path, .*it has 'id', 'label'"),
        ("a.yaml", "{a: [b", "is not YAML"),
        ("a.yaml", "names: [a]", "expected a list of paths"),
        ("a.parquet", "no", "is not a Parquet file"),
        ("a.csv", "\udcff\udcfe", "is not text in UTF-8"),
        ("a.zip", "no", "cannot be read as an archive"),
        ("a.tar", "no", "cannot be read as an archive"),
    ],
)
def test_lists_of_another_content_are_refused_in_words(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingError, match=said):
        list_images(tmp_path / name)


def archive(place: Path, names: list[str], stored: bool = False) -> None:
    """Small pictures in an archive, the n-th of n grey."""
    pictures = {}
    for number, name in enumerate(names):
        picture = io.BytesIO()
        Image.new("RGB", (4, 3), (number,) * 3).save(picture, "PNG")
        pictures[name] = picture.getvalue()
    if place.suffix == ".zip":
        with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as file:
            for name, data in pictures.items():
                file.writestr(name, data)
    else:
        with tarfile.open(place, "w") as file:
            for name, data in pictures.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))


class Greys(Dataset):
    def __init__(self, source):
        self.images = list_images(source)

    def __len__(self):
        return len(self.images.paths)

    def __getitem__(self, index):
        return int(read_image(Path(self.images.root, self.images.paths[index])).image[0, 0, 0])


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar"])
def test_images_are_read_out_of_archives_by_several_processes(tmp_path, name):
    names = [f"{number % 7}/{number}.png" for number in range(40)]
    archive(tmp_path / name, [*names, "__MACOSX/1.png", ".hidden/2.png", "notes.txt"])
    listed = list_images(tmp_path / name)
    assert listed.root == str(tmp_path / name)
    assert list(listed.paths) == sorted(names) and listed.others == {".txt": 1}
    expected = [names.index(path) for path in listed.paths]
    loader = DataLoader(Greys(tmp_path / name), batch_size=1, num_workers=3)
    for _ in range(2):
        assert [int(grey) for grey in loader] == expected
    with pytest.raises(UnreadableImage, match=f"{name}/9/9.png: no such file in"):
        read_image(tmp_path / name / "9" / "9.png")


def test_several_sources_follow_each_other(tmp_path):
    touch(tmp_path, "a/2.jpg", "a/1.jpg", "b/c/1.jpg", "b/c/x.txt")
    archive(tmp_path / "b" / "photos.zip", ["1.png"])
    listed = list_images([tmp_path / "b" / "c", tmp_path / "a", tmp_path / "b" / "photos.zip"])
    assert listed.root == str(tmp_path)
    assert list(listed.paths) == ["b/c/1.jpg", "a/1.jpg", "a/2.jpg", "b/photos.zip/1.png"]
    assert listed.others == {".txt": 1}
    assert read_image(Path(listed.root, listed.paths[3])).source_size == (4, 3)
    with pytest.raises(SettingError, match=r"b/c/1\.jpg comes twice"):
        list_images([tmp_path / "b", tmp_path / "b" / "c"])


def test_pipes_and_devices_of_a_folder_are_passed_over(tmp_path):
    touch(tmp_path, "1.jpg")
    os.mkfifo(tmp_path / "2.jpg")
    listed = list_images(tmp_path)
    assert list(listed.paths) == ["1.jpg"] and listed.others == {"pipe, socket or device": 1}


def test_only_the_first_entries_are_looked_up(tmp_path):
    names = [f"{number}.jpg" for number in range(20)]
    touch(tmp_path, *itertools.islice(names, 8))
    (tmp_path / "all.txt").write_text("\n".join(names))
    assert len(list_images(tmp_path / "all.txt").paths) == 20


def test_a_link_to_itself_is_an_image_that_cannot_be_read(tmp_path):
    touch(tmp_path, "1.jpg")
    (tmp_path / "2.jpg").symlink_to("2.jpg")
    assert list(list_images(tmp_path).paths) == ["1.jpg", "2.jpg"]


def test_members_that_lead_out_of_an_archive_are_passed_over(tmp_path):
    """The path of an absolute one would be that of a file beside the archive."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("1.jpg", "/etc/2.jpg", "../3.jpg", "a/../../4.jpg"):
            file.writestr(name, b"x")
    found = list_images(tmp_path / "a.zip")
    assert list(found.paths) == ["1.jpg"] and found.others == {"path that leads out of the archive": 3}


@pytest.mark.parametrize(("name", "depth"), [("a.json", 200_000), ("a.yaml", 9_000)])
def test_a_list_nested_too_deeply_is_refused_in_words(tmp_path, name, depth):
    (tmp_path / name).write_text("[" * depth)
    with pytest.raises(SettingError, match=r"is not (JSON|YAML)"):
        list_images(tmp_path / name)
