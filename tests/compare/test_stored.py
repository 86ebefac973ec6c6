"""A crafted or damaged ``grid.json`` or record is refused, and names no file outside the folder."""

import json

import pytest

from densessl.cli import main
from densessl.comparison.cells import write_json
from densessl.comparison.run import run_grid

LONG = "n" * 5000
GRID = dict(config="x", inits={"a": None}, labels=["all"], seeds=[0], fixed=dict(config="c", data={}, steps=3))


def show(folder, capsys):
    code = main(["compare", "--show", "--out", str(folder)])
    return code, capsys.readouterr().err


NAMES = ["../x", "/etc/passwd", "a/b", "a\0b", LONG, "", " ", "a\nb"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:9]))
def test_a_name_that_is_none_of_a_file_is_refused(name, tmp_path, capsys):
    secret = {"identity": {**GRID["fixed"], "init": None, "labels": "all", "seed": 0}, "result": {"curve": []}}
    (tmp_path / "out/cells").mkdir(parents=True)
    write_json(tmp_path / "out/x_all_seed0.json", secret)  # what ../x would read
    write_json(tmp_path / "out/grid.json", GRID | dict(inits={name: None}))
    before = sorted(tmp_path.rglob("*"))
    code, text = show(tmp_path / "out", capsys)
    assert code == 2 and "grid.json is not that of a comparison: inits: found" in text and len(text) < 1000
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "change",
    [
        dict(inits=[1]),
        dict(inits={}),
        dict(inits={"a": 1}),
        dict(labels="all"),
        dict(labels=[]),
        dict(labels=[1]),
        dict(labels=["../../x"]),
        dict(seeds=None),
        dict(seeds=["../x"]),
        dict(fixed=None),
        dict(fixed={}),
        dict(config=3),
    ],
    ids=str,
)
def test_entries_of_other_kinds_are_refused(change, tmp_path, capsys):
    write_json(tmp_path / "grid.json", GRID | change)
    code, text = show(tmp_path, capsys)
    assert code == 2 and f"grid.json is not that of a comparison: {next(iter(change))}: " in text


@pytest.mark.parametrize("text", ["", "[", "[1]", '"x"', "3", "{}", "[" * 100_000], ids=lambda text: text[:3])
def test_what_is_no_grid_is_refused(text, tmp_path, capsys):
    (tmp_path / "grid.json").write_text(text)
    code, said = show(tmp_path, capsys)
    assert code == 2 and "grid.json is not that of a comparison" in said


RESULTS = [None, {}, {"curve": 3}, {"curve": [], "load": []}, {"curve": [{"step": "x"}], "load": []}]


@pytest.mark.parametrize("result", RESULTS)
def test_a_damaged_record_is_named(result, toy, capsys):
    run_grid(toy.small(), say=lambda line: None)
    path = toy.folder / "out/cells/ours_all_seed0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(result=result)))
    code, text = show(toy.folder / "out", capsys)
    assert code == 2 and "ours_all_seed0.json is not the record of a run; remove it" in text
