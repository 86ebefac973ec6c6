"""The command line, with the stand-in trainer; and what it leaves in its folder."""

import functools
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from densessl.cli import compare as cli
from densessl.comparison import Grid

ROOT = Path(__file__).parents[2]


@pytest.fixture
def compare(toy, monkeypatch):
    """Run ``compare`` with these words, and give its exit code."""
    monkeypatch.setattr(cli, "Grid", functools.partial(Grid, trainer=toy.grid().trainer))

    return lambda *words: cli.main(["--out", f"{toy.folder}/out", *words])


def words(toy, *inits):
    inits = inits or ("random=none", f"ours={toy.folder}/good.pth")
    line = ["--config", f"{toy.folder}/toy.py", "--data-root", f"{toy.folder}/data", "--steps", "10"]
    return line + [word for init in inits for word in ("--init", init)]


def test_a_comparison(toy, compare, capsys):
    assert compare(*words(toy), "--labels", "10%", "--labels", "100%", "--jobs", "2", "--threads", "1") == 0
    out, text = toy.folder / "out", capsys.readouterr().out
    assert {path.name for path in out.iterdir()} >= {"cells", "results.md", "results.json", "steps.png", "labels.png"}
    assert (out / "results.md").read_text() in text
    assert "| ours         | +5.0 ± 0.0 (3/3) * |" in text
    assert json.loads((out / "results.json").read_text())["results"][0]["by_seed"] == pytest.approx(
        {"0": 10.0, "1": 11.0, "2": 12.0}
    )
    assert (out / "steps.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_show_runs_nothing(toy, compare, capsys):
    assert compare("--show") == 2
    assert "no comparison was begun" in capsys.readouterr().err
    compare(*words(toy), "--seeds", "1")
    begun = len(toy.started())
    for path in (toy.folder / "toy.py", toy.folder / "good.pth", toy.folder / "out/cells/ours_all_seed0.json"):
        path.unlink()
    capsys.readouterr()
    assert compare("--show") == 0
    text = capsys.readouterr().out
    assert "Not done: 1 of 2 runs" in text and "deviation and standard error are unknown" in text
    assert len(toy.started()) == begun
    assert compare("--show", "--metric", "AP51") == 2


def test_a_failed_run_is_exit_code_1(toy, compare, capsys):
    assert compare(*words(toy, "random=none", f"bad={toy.folder}/bad.pth"), "--seeds", "1") == 1
    assert "no such layer" in capsys.readouterr().out


def test_checkpoints_stay_where_asked(toy, compare):
    assert compare(*words(toy), "--seeds", "1", "--keep") == 0
    assert len(list((toy.folder / "out/runs").rglob("*.pth"))) == 2


@pytest.mark.parametrize(
    "line, told",
    [
        (["--init", "random"], "--init random: expected NAME=FILE"),
        (["--init", "a=x", "--init", "a=none"], "a was given before, as x"),
        (["--init", "a=none", "--jobs", "0"], "--jobs: expected 1 or more, found 0"),
        (["--init", "a=none", "--seeds", "0"], "--seeds: expected one or more"),
        ([], "--init: expected NAME=FILE at least once"),
    ],
)
def test_bad_words_are_exit_code_2(toy, compare, capsys, line, told):
    assert compare("--config", f"{toy.folder}/toy.py", *line) == 2
    assert told in capsys.readouterr().err


def test_evaluations_need_steps(toy, compare, capsys):
    assert compare("--config", f"{toy.folder}/toy.py", "--init", "a=none", "--evaluations", "3") == 2
    assert "--evaluations" in capsys.readouterr().err
    assert compare("--init", "a=none") == 2
    assert "--config" in capsys.readouterr().err


def test_the_tool(tmp_path, monkeypatch, capsys):
    """A config that is not there names its neighbours; the trainer is a module that Python finds."""
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location("transfer_tool", "tools/transfer.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    line = ["compare", "--config", "configs/pixpro_r51.py", "--init", "random=none", "--out", str(tmp_path)]
    assert tool.main(line) == 2
    assert "pixpro_r50.py" in capsys.readouterr().err
    command = [sys.executable, *Grid.trainer, "--help"]
    assert "usage: densessl train" in subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout
