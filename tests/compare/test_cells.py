"""Cells of any kind: kept, skipped, stopped, refused. The commands are Python one-liners."""

import json
import multiprocessing
import os
import signal
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from densessl.comparison.cells import Cell, CompareError, Failure, command_text, run_cells
from densessl.files import sha256


def cell(name, code="print('done')", identity=None, **more):
    command = [sys.executable, "-c", code, "{run}"]
    settings = dict(name=name, identity=identity or {"a": 1}, command=command, read=lambda run: dict(found=name))
    return Cell(**{**settings, **more})


def test_a_cell_is_run_once(tmp_path):
    code = f"open({str(tmp_path / 'times')!r}, 'a').write('x')"
    for _ in range(2):
        records, failures = run_cells([cell("one", code)], tmp_path)
        assert records["one"]["result"] == {"found": "one"} and not failures
    assert (tmp_path / "times").read_text() == "x"


def test_the_record(tmp_path):
    code = "import sys, pathlib; [(pathlib.Path(sys.argv[1]) / n).write_text(n) for n in ('a.pth', 'b.pth', 'c.txt')]"
    one = cell("deep/one", code, identity={"t": (1, 2)}, keeps=["b.*"], about={"x": 1}, environment={"WORD": "a b"})
    run_cells([one], tmp_path)
    record = json.loads((tmp_path / "deep/one.json").read_text())
    run = tmp_path / "runs/deep/one"
    assert sorted(path.name for path in run.iterdir()) == ["b.pth", "c.txt", "output.txt"]
    assert record["files"] == {"b.pth": sha256(run / "b.pth")}
    assert record["identity"] == {"t": [1, 2]} and record["about"] == {"x": 1} and record["seconds"] >= 0
    assert record["command"] == command_text(one, run) and record["command"].endswith(f" {run}")
    assert record["command"].startswith("WORD='a b' python -c ")


def test_one_fails_and_the_others_go_on(tmp_path, monkeypatch):
    """The reason is the last line of the output, also where Python buffers what it prints to a file."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    ended = []
    bad = "print('\\n'.join(f'line {i}' for i in range(99))); raise SystemExit('broken')"
    unread = cell("c", read=lambda run: {}["nothing"] if not run.exists() else int("no number"))
    cells = [cell("a"), cell("b", bad), unread, cell("d")]
    records, failures = run_cells(cells, tmp_path, finished=lambda cell, outcome: ended.append(cell.name))
    assert list(records) == ["a", "d"] and ended == ["a", "b", "c", "d"]
    assert [failure.name for failure in failures] == ["b", "c"]
    assert failures[0].reason == "exit code 1" and failures[0].tail.endswith("line 98\nbroken")
    assert "line 80" not in failures[0].tail and "no number" in failures[1].reason
    assert str(tmp_path / "runs/b/output.txt") in str(failures[0])
    again, failures = run_cells([cell("b", "print(1)")], tmp_path)
    assert list(again) == ["b"] and not failures


def test_another_identity_is_refused_with_what_differs(tmp_path):
    code = f"open({str(tmp_path / 'times')!r}, 'a').write('x')"
    run_cells([cell("one", code), cell("two", code)], tmp_path)
    changed = [cell(name, code, identity={"a": 2, "b": None}) for name in ("one", "two", "new")]
    with pytest.raises(CompareError, match=r"(?s)one\.json.*a: 1 there, 2 now\nand 1 more.*--redo"):
        run_cells(changed, tmp_path)
    assert (tmp_path / "times").read_text() == "xx"
    records, _ = run_cells(changed, tmp_path, redo=True)
    assert (tmp_path / "times").read_text() == "xxxxx"
    assert records["one"]["identity"] == {"a": 2, "b": None}


def test_jobs_run_at_once(tmp_path):
    """Each waits until the other has begun."""
    code = textwrap.dedent(f"""
        import pathlib, sys, time
        here = pathlib.Path({str(tmp_path)!r})
        (here / f"begun{{pathlib.Path(sys.argv[1]).name}}").touch()
        until = time.monotonic() + 20
        while len(list(here.glob("begun*"))) < 2:
            assert time.monotonic() < until
            time.sleep(0.02)
    """)
    records, failures = run_cells([cell("a", code), cell("b", code)], tmp_path / "out", jobs=2)
    assert len(records) == 2 and not failures


def test_names_are_different_and_records_are_records(tmp_path):
    with pytest.raises(CompareError, match="one"):
        run_cells([cell("one"), cell("one")], tmp_path)
    (tmp_path / "one.json").write_text("{")
    with pytest.raises(CompareError, match=r"one\.json is not the record"):
        run_cells([cell("one")], tmp_path)


def wait_for(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


SLOW = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"


def run_slow(folder):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal: test workers ignore it
    run_cells([cell("quick"), cell("slow", SLOW), cell("never")], folder)


def begin(folder):
    """A process with a cell that lasts, and the id of that cell's process."""
    process = multiprocessing.get_context("fork").Process(target=run_slow, args=(folder,))
    process.start()
    output = folder / "runs/slow/output.txt"
    wait_for(lambda: output.exists() and output.read_text().endswith("\n"))
    return process, int(output.read_text())


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ctrl_c_ends_the_run_and_loses_only_it(tmp_path):
    process, pid = begin(tmp_path)
    os.kill(process.pid, signal.SIGINT)
    process.join(20)
    wait_for(lambda: not alive(pid))
    assert sorted(path.stem for path in tmp_path.glob("*.json")) == ["quick"]
    records, _ = run_cells([cell("quick", "raise SystemExit(1)"), cell("slow"), cell("never")], tmp_path)
    assert list(records) == ["quick", "slow", "never"]
    assert (tmp_path / "runs/slow/output.txt").read_text() == "done\n"


def test_what_resumes_finds_what_it_left(tmp_path):
    """Steps are files; the first run fails after two of them."""
    code = textwrap.dedent("""
        import pathlib, sys
        here = pathlib.Path(sys.argv[1])
        for step in range(len(list(here.glob("step*"))), 4):
            (here / f"step{step}").write_text(sys.argv[1])
            print(step, flush=True)
            if step == 1:
                raise SystemExit(1)
    """)
    one = cell("one", code, resumes=True)
    _, failures = run_cells([one], tmp_path)
    assert failures
    records, _ = run_cells([one], tmp_path)
    assert records["one"]["sittings"] == 2
    output = tmp_path / "runs/one/output.txt"
    assert output.read_text() == "0\n1\n2\n3\n"
    for changed in (cell("one", code, identity={"a": 2}, resumes=True), cell("one", code, identity={"a": 2})):
        (tmp_path / "one.json").unlink()
        _, failures = run_cells([changed], tmp_path)  # of another run nothing is left, nor where none resumes
        assert failures and output.read_text() == "0\n1\n"
        run_cells([replace(changed, resumes=True)], tmp_path)


def test_after_a_kill_the_folder_is_free_when_what_was_left_has_ended(tmp_path):
    process, pid = begin(tmp_path)
    process.kill()
    process.join(20)
    try:
        with pytest.raises(CompareError, match="another command is at work"):
            run_cells([cell("slow")], tmp_path)
    finally:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))
    records, _ = run_cells([cell("quick"), cell("slow")], tmp_path)
    assert list(records) == ["quick", "slow"]


def test_two_at_once_in_one_folder_are_refused(tmp_path):
    process, _ = begin(tmp_path)
    with pytest.raises(CompareError, match="another command is at work"):
        run_cells([cell("slow")], tmp_path)
    os.kill(process.pid, signal.SIGINT)
    process.join(20)


def test_a_failure_tells_where_to_look():
    text = str(Failure("a", "exit code 2", "x\ny", Path("runs/a/output.txt")))
    assert text == "a: exit code 2; the end of runs/a/output.txt:\n    x\n    y\n"
