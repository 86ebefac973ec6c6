"""The builder: the same bytes whatever happens to it."""

import json
import multiprocessing
import os
import random
import re
import shutil
import time

import numpy as np
import pytest

from densessl.cli.regions import main
from densessl.regions import RegionStore, StoreError
from densessl.regions import build as build_module
from densessl.regions.build import build
from densessl.regions.journal import Journal, image_record, unreadable_record
from densessl.regions.proposals import Proposals
from densessl.regions.store_format import BOXES, INDEX, JOURNAL, MANIFEST, PATHS, pack
from tests.regions.slow_boxes import LOG, build_slowly, number_of, write_images

NAMES = (BOXES, INDEX, PATHS, MANIFEST)
GENERATOR = dict(type="SlowBoxes")


def content(out):
    assert sorted(path.name for path in out.iterdir()) == sorted(NAMES)
    return [(out / name).read_bytes() for name in NAMES]


def plan_of(out):
    about = json.loads((out / MANIFEST).read_bytes())["about"]
    return {name: value for name, value in about.items() if name != "unreadable"}


def numbers(log):
    """Of the images that were begun."""
    return set(map(int, log.read_text().split()[::2])) if log.exists() else set()


def processes(log):
    """That began them, those that still run."""
    started = set(log.read_text().split()[1::2]) if log.exists() else set()
    return {process for process in started if os.path.exists(f"/proc/{process}")}


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "data", 30)


@pytest.fixture
def builder():
    """Starts build_slowly in a process, which has imported all it needs already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.regions.slow_boxes"])
    processes = []

    def start(*args, **kwargs):
        processes.append(context.Process(target=build_slowly, args=args, kwargs=kwargs))
        processes[-1].start()
        return processes[-1]

    yield start
    for process in processes:
        kill(process)


def kill(process):
    process.kill()
    process.join()


def wait_until(condition, process):
    while not condition():
        assert process.is_alive()
        time.sleep(0.002)


def test_the_result_does_not_depend_on_the_workers_nor_on_the_other_images(data, tmp_path):
    kwargs = dict(per_image=20, draws=2, seed=3, select=[dict(type="TopK", k=25, ranking="random")])
    alone = build(data, tmp_path / "a", GENERATOR, workers=0, **kwargs)
    build(data, tmp_path / "b", GENERATOR, workers=2, **kwargs)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert len(alone) == 30 and alone.draws == 2
    counts = [len(draw.boxes) for _, _, draws in alone for draw in draws]
    assert max(counts) == 20 and min(counts) < 20
    (tmp_path / "list.txt").write_text("n2/7.png\nn0/1.png\nn2/7.png\n")
    few = build(tmp_path / "list.txt", tmp_path / "c", GENERATOR, root=data, **kwargs)
    assert list(few.paths()) == ["n2/7.png", "n0/1.png"]
    for path, size, draws in few:
        for number, draw in enumerate(draws):
            found, found_size = alone.lookup(path, number)
            assert np.array_equal(found.boxes, draw.boxes) and size == found_size
        assert not np.array_equal(draws[0].boxes, draws[1].boxes)
    other = build(data, tmp_path / "d", GENERATOR, **kwargs | dict(seed=4))
    assert not np.array_equal(other.lookup("n0/1.png")[0].boxes, alone.lookup("n0/1.png")[0].boxes)
    assert not np.array_equal(alone.lookup("n0/1.png")[0].boxes, alone.lookup("n1/1.png")[0].boxes)


def test_killed_again_and_again_it_ends_with_the_same_bytes_and_does_nothing_twice(tmp_path, builder):
    """The moments are seeded; the machine adds its own chance."""
    count = 400
    data, whole, out = write_images(tmp_path / "data", count), tmp_path / "whole", tmp_path / "out"
    kwargs = dict(generator=GENERATOR, seed=5)
    build(data, whole, **kwargs)
    order = np.array([number_of(path) for path in RegionStore(whole).paths()])
    moments = random.Random(7)
    finished = set()
    logs = [tmp_path / f"log{attempt}" for attempt in range(5)]
    for attempt, log in enumerate(logs):
        process = builder(log, 0.02, data, out, workers=2, **kwargs)
        if attempt % 2:  # it gets as far as working, in any case
            wait_until(lambda log=log: len(numbers(log)) > 4, process)
        time.sleep(moments.uniform(0, 0.25))
        kill(process)
        assert not numbers(log) & finished
        if (out / JOURNAL).exists():
            journal = Journal(out / JOURNAL, plan_of(whole), count)
            now = set(order[journal.done].tolist())
            journal.close()
            assert now >= finished
            finished = now
    assert 0 < len(finished) < count
    last = builder(tmp_path / "last", 0, data, out, workers=2, **kwargs)
    last.join()
    assert last.exitcode == 0 and numbers(tmp_path / "last") == set(range(count)) - finished
    assert content(out) == content(whole)
    until = time.monotonic() + 20
    while any(map(processes, logs)):
        assert time.monotonic() < until, "workers live on without their builder"
        time.sleep(0.05)


def test_a_build_that_stops_while_it_writes_the_store_does_no_image_again(data, tmp_path, monkeypatch):
    build(data, tmp_path / "whole", GENERATOR)

    def stopped(out, images, about):
        (out / f"{BOXES}.part").write_bytes(b"half")
        (out / INDEX).write_bytes(b"whole but alone")
        raise MemoryError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "write_packed", stopped)
        with pytest.raises(MemoryError):
            build(data, tmp_path / "out", GENERATOR)
    with pytest.raises(StoreError, match="is not finished"):
        RegionStore(tmp_path / "out")
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    build(data, tmp_path / "out", GENERATOR)
    assert content(tmp_path / "out") == content(tmp_path / "whole") and not numbers(tmp_path / "log")


def test_one_builder_at_a_time(data, tmp_path, builder):
    out = tmp_path / "out"
    process = builder(tmp_path / "log", 5, data, out, GENERATOR, workers=1)
    wait_until((out / JOURNAL).exists, process)
    with pytest.raises(StoreError, match="is being built by another process"):
        build(data, out, GENERATOR)
    kill(process)
    build(data, out, GENERATOR)


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(seed=1), r"seed: 0 there, 1 now"),
        (dict(per_image=3), r"per_image: None there, 3 now"),
        (dict(draws=2), r"draws: 1 there, 2 now"),
        (dict(generator=dict(GENERATOR, fails_at=1)), r"generator: \{'type': 'SlowBoxes'\} there"),
        (dict(select=[dict(type="TopK", k=1)]), r"select: \[\] there"),
        (dict(source="n1"), r"images: 30 there, 10 now; list: "),
    ],
)
def test_other_parameters_or_images_are_refused(data, tmp_path, monkeypatch, finished, changes, message):
    out = tmp_path / "out"
    if not finished:
        monkeypatch.setattr(build_module, "_finish", lambda *_: None)
        monkeypatch.setattr(build_module, "RegionStore", lambda _: None)
        monkeypatch.setattr(build_module.Path, "unlink", lambda *_, **__: None)
    build(data, out, GENERATOR)
    monkeypatch.undo()
    assert (out / MANIFEST).exists() == finished != (out / JOURNAL).exists()
    changes = dict(source=data, generator=GENERATOR) | changes
    with pytest.raises(StoreError, match=message):
        build(data / changes.pop("source"), out, **changes)


def test_unreadable_images_are_listed_and_stop_nothing(data, tmp_path, capsys):
    (data / "n0" / "0.png").write_bytes(b"")
    whole = (data / "n1" / "5.png").read_bytes()
    (data / "n1" / "5.png").write_bytes(whole[:50])
    store = build(data, tmp_path / "a", GENERATOR, workers=1)
    unreadable = store.manifest["about"]["unreadable"]
    assert list(unreadable) == ["n0/0.png", "n1/5.png"] and unreadable["n0/0.png"] == "the file is empty"
    assert len(store) == 28 and "n1/5.png" not in store
    shutil.move(data, tmp_path / "moved")
    arguments = ["build", tmp_path / "moved", tmp_path / "b", "--generator", "grid", "--workers", "0"]
    assert main([str(argument) for argument in arguments]) == 0
    told = capsys.readouterr().out
    assert "2 unreadable" in told and "n0/0.png: the file is empty" in told
    build(tmp_path / "moved", tmp_path / "c", GENERATOR)
    assert content(tmp_path / "a") == content(tmp_path / "c")


def test_an_image_that_was_unreadable_is_tried_again_when_the_build_goes_on(data, tmp_path, monkeypatch):
    build(data, tmp_path / "whole", GENERATOR)
    shutil.move(data / "n1" / "5.png", tmp_path / "5.png")
    (data / "n1" / "5.png").touch()
    with pytest.raises(RuntimeError, match=r"/n2/9\.png: SlowBoxes failed: 'lost'"):
        build(data, tmp_path / "out", dict(GENERATOR, fails_at=29))
    shutil.move(tmp_path / "5.png", data / "n1" / "5.png")
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    with pytest.raises(RuntimeError, match="lost"):
        build(data, tmp_path / "out", dict(GENERATOR, fails_at=29))
    assert numbers(tmp_path / "log") == {16, 29}


def test_no_readable_image_is_an_error(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").touch()
    with pytest.raises(StoreError, match=r"none of the 1 image .*'a\.png', since: the file is empty"):
        build(tmp_path / "data", tmp_path / "out", GENERATOR)


def test_a_journal_is_read_up_to_its_last_whole_record(tmp_path):
    plan, path = {"draws": 2, "seed": 1}, tmp_path / "journal.bin"
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((4, 2, 2, 2)), 2).reshape(4, 2, 4)
    images = [pack("x", (9, 9), [Proposals.plain(one)] * 2) for one in corners]
    journal = Journal(path, plan, 5)
    ends = [path.stat().st_size]
    records = {3: image_record(images[0]), 0: unreadable_record("caf\udce9"), 4: image_record(images[1])}
    for position, record in records.items():
        journal.append(position, record)
        ends.append(path.stat().st_size)
    journal.close()
    written = path.read_bytes()
    for length in range(len(written) + 1):
        path.write_bytes(written[:length])
        if length < ends[0]:
            with pytest.raises(StoreError, match="not the journal of a build"):
                Journal(path, plan, 5)
            continue
        journal = Journal(path, plan, 5)
        whole = sum(length >= end for end in ends)
        assert path.stat().st_size == ends[whole - 1]
        assert journal.done.tolist() == [False, False, False, whole > 1, whole > 3]
        assert journal.unreadable.tolist() == [whole > 2, False, False, False, False]
        journal.append(0, image_record(images[2]))
        journal.close()
        journal = Journal(path, plan, 5)
        assert journal.done[0] and not journal.unreadable.any()
        for position, expected in ((0, images[2]), (3, images[0]), (4, images[1])):
            if journal.done[position]:
                found = journal.image(position)
                assert found[:3] == expected[:3] and np.array_equal(found.rows, expected.rows)
        journal.close()
    damaged = bytearray(written)
    damaged[ends[2] + 20] ^= 1
    path.write_bytes(damaged)
    journal = Journal(path, plan, 5)
    assert journal.done.sum() == 1 and journal.reason(0) == "caf\udce9" and path.stat().st_size == ends[2]
    journal.close()


def test_the_command_leaves_a_finished_store_alone(data, tmp_path, capsys):
    command = ["build", str(data), str(tmp_path / "out"), "--generator", "random", "--workers", "1"]
    command += ["--generator-options", "count=7", "area=(0.1,0.2)", "--per-image", "5", "--select", "detreg"]
    assert main(command) == 0
    assert "boxes per image  5.0 on average" in capsys.readouterr().out
    before = [(tmp_path / "out" / name).stat() for name in NAMES]
    assert main(command) == 0
    assert "is finished already" in capsys.readouterr().out
    assert [(tmp_path / "out" / name).stat() for name in NAMES] == before
    assert main(["check", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["build", "/nowhere/at/all", "OUT"], "error: no data set at /nowhere/at/all"),
        (["build", "DATA", "OUT", "--per-image", "-1"], "error: per_image is -1, expected at least 1"),
        (["build", "DATA", "OUT", "--draws", "0"], "error: draws is 0"),
        (
            ["build", "DATA", "OUT", "--generator-options", "cells=3"],
            "error: generator grid takes no 'cells', but scales",
        ),
        (["build", "DATA", "OUT", "--generator-options", "scales=0.5"], "error: generator grid does not take"),
        (["build", "DATA", "OUT", "--generator-options", "overlap=1"], "error: .*Grid.overlap is 1"),
        (["check", "OUT"], "error: no store of regions: .*OUT does not exist"),
        (["check", "OUT", "--picture", "a.png"], "error: --picture needs --data"),
        (["import", "OUT.csv", "OUT"], "error: "),
    ],
)
def test_wrong_commands_are_told_in_a_line(data, tmp_path, capsys, command, message):
    command = [word.replace("DATA", str(data)).replace("OUT", str(tmp_path / "OUT")) for word in command]
    assert main(command + (["--generator", "grid", "--workers", "0"] if command[0] == "build" else [])) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.match(message, told)
