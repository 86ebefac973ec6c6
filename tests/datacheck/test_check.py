"""``densessl data check`` finds what was put into a folder, and nothing else."""

import base64
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densessl.cli.data import main
from densessl.data.sources import list_images
from densessl.datacheck import facts
from densessl.extras import how_to_install
from tests.datacheck.fixtures import Page, jpeg, picture, write_folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "photos")


def found(*words: object, code: int = 0) -> dict:
    """What a check writes as JSON."""
    out = Path(words[0]).parent / "found.json"
    assert main(["check", *map(str, words), "--json", str(out), "--workers", "1"]) == code
    return json.loads(out.read_text())


def names(paths) -> set[str]:
    return {Path(path).name for path in paths}


def test_the_counts_are_those_of_the_folder(folder):
    result = found(folder, "--bad-images", "2")
    (images,) = result["sets"]
    assert (images["images"], images["unreadable"], images["budget"]) == (12, 2, 2)
    assert images["passed_over"] == {".cr2": 2, ".txt": 1}
    reasons = {Path(each["path"]).name: each["reason"] for each in result["unreadable"]}
    assert set(reasons) == {"cut.jpg", "empty.png"}
    assert "truncated" in reasons["cut.jpg"] and reasons["empty.png"] == "the file is empty"
    kinds = {(each["format"], each["mode"], each["bits"]): each["images"] for each in result["kinds"]}
    assert kinds == {("JPEG", "RGB", 8): 8, ("PNG", "I;16", 16): 1, ("BMP", "L", 8): 1}
    assert result["more_than_8_bits"] == dict(images=1, lowest=3, highest=4095)
    assert result["bytes"] == sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.suffix.lower() in (".jpg", ".png", ".bmp") and path.name not in reasons
    )


def test_sizes(folder):
    result = found(folder, "--bad-images", "2")
    edges, images = result["megapixels"]["edges"], result["megapixels"]["images"]
    pixels = [96 * 80] * 7 + [320 * 200] + [64 * 64] * 2
    assert images == np.histogram(np.array(pixels) / 1e6, [*edges, np.inf])[0].tolist()
    assert names(each["path"] for each in result["smallest"]) == {"deep.png", "grey.bmp", "0.jpg"}
    largest = result["largest"][0]
    assert (Path(largest["path"]).name, largest["width"], largest["height"]) == ("large.JPG", 320, 200)


def test_duplicates(folder):
    result = found(folder, "--bad-images", "2")
    exact, near = result["exact_duplicates"], result["near_duplicates"]
    assert (exact["groups"], exact["copies"], near["groups"]) == (1, 1, 1)
    assert names(exact["files"][0]) == {"0.jpg", "again.jpg"} and names(near["files"][0]) == {"1.jpg", "poorer.jpg"}


def test_without_imagehash_near_duplicates_are_left_out(folder, monkeypatch, capsys):
    monkeypatch.setattr(facts, "can_hash", lambda: False)
    result = found(folder, "--bad-images", "2")
    assert result["near_duplicates"] is None and result["exact_duplicates"]["copies"] == 1
    assert how_to_install("check") in capsys.readouterr().out


@pytest.mark.parametrize(("budget", "code"), [("0.1%", 3), ("1", 3), ("2", 0), ("none", 3), ("50%", 0)])
def test_the_exit_code_follows_the_budget(folder, budget, code, capsys):
    assert main(["check", str(folder), "--bad-images", budget, "--workers", "1"]) == code
    said = capsys.readouterr().out
    assert ("training would stop" in said) == (code == 3)
    assert said.splitlines()[-1].startswith("Next")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "no data set at"),
        ([], "found no data"),
        (["photos", "--workers", "0"], "--workers"),
        (["photos", "--workers", "many"], "--workers"),
        (["photos", "--limit", "0"], "--limit"),
        (["photos", "--bad-images", "few"], "--bad-images"),
        (["photos", "--drop-duplicates"], "--write-clean"),
        (["photos", "--write-clean", "clean.csv"], "ends in .txt"),
        (["photos", "--report", "."], "is a folder"),
        (["photos", "--data-root", "other"], "is for a config"),
        (["photos", "--set", "a=1"], "none is given"),
        (["pixpro_r18"], "--data-root"),
    ],
)
def test_wrong_settings(folder, words, told, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    assert main(["check", *words]) == 2
    assert told in capsys.readouterr().err


def test_any_number_of_workers_finds_the_same(folder, tmp_path, capsys):
    said = []
    for number in ("1", "2"):
        words = ["--workers", number, "--json", str(tmp_path / f"{number}.json"), "--bad-images", "2"]
        assert main(["check", str(folder), *words, "--report", str(tmp_path / f"{number}.html")]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    for suffix in ("json", "html"):
        assert (tmp_path / f"1.{suffix}").read_bytes() == (tmp_path / f"2.{suffix}").read_bytes()


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("drop", [True, False])
def test_the_clean_list_holds_the_good_images(folder, tmp_path, drop, inside):
    file = (folder if inside else tmp_path / "lists") / "clean.txt"
    found(folder, "--bad-images", "2", "--write-clean", file, *["--drop-duplicates"] * drop)
    listed = list_images(file)
    files = [Path(listed.root, path) for path in listed.paths]
    good = {"0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", "large.JPG", "poorer.jpg", "deep.png", "grey.bmp"}
    assert all(path.is_file() for path in files) and len(files) == len(set(files)) == 9 + (not drop)
    assert {path.name for path in files} == good | (set() if drop else {"again.jpg"})
    assert all(path.startswith("/") != inside for path in listed.paths)
    result = found(file)
    assert result["unreadable"] == [] and result["exact_duplicates"]["copies"] == 1 - drop


def test_an_archive_and_its_clean_list(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.jpg", jpeg(picture(number)))
        archive.writestr("bad.jpg", b"nothing")
    result = found(tmp_path / "photos.zip", "--write-clean", tmp_path / "clean.txt")
    assert (result["sets"][0]["images"], result["sets"][0]["unreadable"]) == (4, 1)
    assert list(list_images(tmp_path / "clean.txt").paths) == [f"photos.zip/{number}.jpg" for number in range(3)]
    assert found(tmp_path / "clean.txt")["unreadable"] == []


def test_several_places_a_limit_and_missing_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            picture(number + 5 * (name == "b")).save(tmp_path / name / f"{number}.png")
    (tmp_path / "list.txt").write_text("a/0.png\na/gone.png\nb/1.png\n")
    assert found(tmp_path / "a", tmp_path / "b")["sets"][0]["images"] == 6
    assert found(tmp_path / "a", tmp_path / "b", "--limit", 4)["sets"][0]["images"] == 4
    (missing,) = found(tmp_path / "list.txt")["unreadable"]
    assert missing == dict(path=str(tmp_path / "a/gone.png"), reason="No such file or directory")


def test_the_page_is_whole_and_holds_the_samples(folder, tmp_path):
    odd = '<b>&"1".jpg'
    (folder / odd).write_bytes(jpeg(picture(20)))
    found(folder, "--bad-images", "2", "--report", tmp_path / "out.html", "--samples", "5")
    page = Page((tmp_path / "out.html").read_text())
    assert len(page.pictures) == 5 and page.links == []
    for source in page.pictures:
        kind, _, data = source.partition(",")
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert kind == "data:image/jpeg;base64" and image.format == "JPEG" and max(image.size) == 480
    words = " ".join(page.words)
    assert all(told in words for told in ("cut.jpg", "the file is empty", "again.jpg", "poorer.jpg", ".cr2", odd))


def test_names_that_are_no_text(tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a\udcff\x1b.jpg").write_bytes(b"bad")
    (folder / "b\udcff.jpg").write_bytes(jpeg(picture(0)))
    (folder / "c\n.jpg").write_bytes(jpeg(picture(1)))
    words = ["--report", str(tmp_path / "out.html"), "--write-clean", str(tmp_path / "clean.txt")]
    result = found(folder, *words)
    said = capsys.readouterr().out
    assert "a\N{REPLACEMENT CHARACTER}" in said and "\x1b" not in said and "1 have names that no list can hold" in said
    assert Path(result["unreadable"][0]["path"]).name == "a\udcff\x1b.jpg"
    assert list(list_images(tmp_path / "clean.txt").paths) == ["photos/b\udcff.jpg"]
    assert len(Page((tmp_path / "out.html").read_text()).pictures) == 2
