"""Grids, with a stand-in for the trainer that logs what a trainer would."""

import json
import shlex
from pathlib import Path

import pytest

from densessl.comparison import CompareError, read_results, run_grid


def quiet(line):
    pass


def record(toy, name):
    return json.loads((toy.folder / f"out/cells/{name}.json").read_text())


def test_every_start_fraction_and_seed_is_run_once(toy):
    said = []
    results = run_grid(toy.grid(), say=said.append)
    assert toy.started() == [
        *("random_10pct_seed0", "ours_10pct_seed0", "random_all_seed0", "ours_all_seed0"),
        *("random_10pct_seed1", "ours_10pct_seed1", "random_all_seed1", "ours_all_seed1"),
    ]
    assert results.missing == 0 and not results.failures
    assert results.values("coco/bbox_mAP", "ours", "10%") == pytest.approx({0: 15.0, 1: 16.0})
    assert [line["step"] for line in results.curve("random", "all", 1)] == [4, 8, 12]
    assert "8 runs of 12 steps, 8 of them to do" in said[0] and "AP 10.0" in said[1]
    again = run_grid(toy.grid(), say=quiet)
    assert len(toy.started()) == 8 and again.records == results.records
    assert not list((toy.folder / "out/runs").rglob("*.pth"))


def test_a_start_that_finds_nothing_has_ap_0(toy):
    said = []
    inits = {"random": None, "empty": str(toy.folder / "empty.pth")}
    results = run_grid(toy.small(inits=inits), say=said.append)
    assert not results.failures and "AP 0.0" in said[2]
    assert results.values("coco/bbox_mAP", "empty", "all") == {0: 0.0}


def test_the_command_is_what_one_would_type(toy):
    run_grid(toy.grid(threads=2, cfg_options=("optim_wrapper.lr=0.2",)), say=quiet)
    variable, program, trainer, *words = shlex.split(record(toy, "ours_10pct_seed1")["command"])
    assert (variable, program, Path(trainer).name) == ("OMP_NUM_THREADS=2", "python", "trainer.py")
    where = toy.folder
    assert words == [
        *(f"{where}/toy.py", "--data-root", f"{where}/data", "--init", f"{where}/good.pth", "--labels", "10%"),
        *("--steps", "12", "--evaluations", "3", "--seed", "1"),
        *("--work-dir", f"{where}/out/runs/cells/ours_10pct_seed1", "--cfg-options", "optim_wrapper.lr=0.2"),
    ]
    assert "threads 2" in (where / "out/runs/cells/ours_10pct_seed1/output.txt").read_text()
    whole = shlex.split(record(toy, "random_all_seed0")["command"])
    assert "--labels" not in whole and whole[whole.index("--init") + 1] == "none"
    assert record(toy, "ours_10pct_seed1")["result"]["load"] == ["x.pth: 120/120 backbone tensors loaded; 0 unexpected"]


def test_new_seeds_fractions_and_starts_are_added(toy):
    run_grid(toy.grid(), say=quiet)
    inits = {"random": None, "more": str(toy.folder / "good.pth"), "ours": str(toy.folder / "good.pth")}
    results = run_grid(toy.grid(inits=inits, seeds=(0, 1, 2), labels=("all", "1%")), say=quiet)
    assert len(results.records) == 18 and len(toy.started()) == 8 + 14


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda toy: (toy.folder / "good.pth").write_text("good, trained longer"), "init: '"),
        (lambda toy: (toy.folder / "data/train.txt").write_text("000001\n"), "data: {'train_dataloader.dataset': "),
        (lambda toy: dict(steps=15), "steps: 12 there, 15 now"),
        (lambda toy: dict(evaluations=1), "evaluations: 3 there, 1 now"),
        (lambda toy: dict(cfg_options=("optim_wrapper.lr=0.2",)), '-  "lr": 0.1\n    +  "lr": 0.2'),
    ],
)
def test_other_settings_are_refused_with_what_differs(toy, change, told):
    run_grid(toy.small(), say=quiet)
    changes = change(toy)
    grid = toy.small(**(changes if isinstance(changes, dict) else {}))
    with pytest.raises(CompareError) as caught:
        run_grid(grid, say=quiet)
    assert told in str(caught.value) and len(toy.started()) == 2
    assert len(read_results(toy.folder / "out").records) == 2  # what was there is still shown
    assert len(run_grid(grid, redo=True, say=quiet).records) == 2


def test_what_was_not_run_anew_is_not_shown_as_new(toy):
    run_grid(toy.small(), say=quiet)
    (toy.folder / "good.pth").write_text("bad")
    results = run_grid(toy.small(), redo=True, say=quiet)
    assert list(results.records) == [("random", "all", 0)] and len(results.failures) == 1
    assert list(read_results(toy.folder / "out").records) == [("random", "all", 0)]


def test_the_environment_of_a_config_is_of_its_identity_and_command(toy, monkeypatch):
    run_grid(toy.small(), say=quiet)
    monkeypatch.setenv("COMPARED", "raccoon")
    with pytest.raises(CompareError, match=r'(?s)-  *"name": "toy".*"name": "raccoon"'):
        run_grid(toy.small(), say=quiet)
    run_grid(toy.small(), redo=True, say=quiet)
    assert record(toy, "random_all_seed0")["command"].startswith("COMPARED=raccoon python ")


def test_where_things_lie_and_what_is_logged_decides_nothing(toy):
    run_grid(toy.small(), say=quiet)
    (toy.folder / "data").rename(toy.folder / "moved")
    (toy.folder / "good.pth").rename(toy.folder / "moved.pth")
    moved = toy.small(
        data_root=str(toy.folder / "moved"),
        inits={"random": None, "ours": str(toy.folder / "moved.pth")},
        cfg_options=("log_level=DEBUG", "custom_hooks.0.checkpoint=x.pth", "default_hooks.logger.interval=1"),
    )
    assert run_grid(moved, say=quiet).missing == 0 and len(toy.started()) == 2


def test_a_hash_stands_for_a_file_that_is_not_here(toy):
    run_grid(toy.small(), say=quiet)
    digest = record(toy, "ours_all_seed0")["identity"]["init"]
    with pytest.raises(CompareError, match="init: "):
        run_grid(
            toy.small(inits={"random": None, "ours": str(toy.folder / "slow.pth")}, hashes={"ours": digest}), say=quiet
        )
    (toy.folder / "good.pth").unlink()
    assert run_grid(toy.small(hashes={"ours": digest}), say=quiet).missing == 0
    with pytest.raises(CompareError, match=r"--init ours: no checkpoint .*good\.pth; near it .*"):
        run_grid(toy.small(), say=quiet)


def test_failed_runs_are_told_and_tried_again(toy):
    inits = {"random": None, "bad": f"{toy.folder}/bad.pth", "silent": f"{toy.folder}/silent.pth"}
    said = []
    results = run_grid(toy.grid(inits=inits, seeds=(0,), labels=("all",)), say=said.append)
    assert results.missing == 2
    assert [failure.reason.split(" (")[0] for failure in results.failures] == [
        "exit code 2",
        "no evaluation in its logs",
    ]
    assert any("no such layer" in line for line in said)
    run_grid(toy.grid(inits=inits, seeds=(0,), labels=("all",)), say=quiet)
    assert len(toy.started()) == 5


def test_steps_are_planned_once_and_for_all(toy):
    grid = toy.grid(steps=None, minutes=0.1)
    assert run_grid(grid, say=quiet).steps == 12  # 6 s of 0.5 s, and not the first steps' 9 s
    plan = json.loads((toy.folder / "out/plan.json").read_text())
    assert plan["result"] == dict(step_seconds=0.5, minutes=0.1, steps=12)
    assert "log_processor.window_size=5" in plan["command"]  # or times are means over the first steps too
    assert toy.started()[0] == "plan" and len(toy.started()) == 9
    run_grid(toy.grid(steps=None, minutes=0.1, seeds=(0, 1, 2)), say=quiet)
    assert toy.started().count("plan") == 1 and len(toy.started()) == 13
    assert {record(toy, f"ours_all_seed{seed}")["identity"]["steps"] for seed in range(3)} == {12}
    with pytest.raises(CompareError, match=r"plan\.json.*\n.*minutes: 0\.1 there, 0\.2 now"):
        run_grid(toy.grid(steps=None, minutes=0.2), say=quiet)


def test_all_that_is_wrong_is_told_before_anything_runs(toy):
    (toy.folder / "dater").mkdir()
    inits = {"a/b": None, "ours": f"{toy.folder}/god.pth"}
    wrong = toy.grid(inits=inits, data_root=f"{toy.folder}/dat", labels=("1%", "1%"), minutes=1, evaluations=0)
    with pytest.raises(CompareError) as caught:
        run_grid(wrong, say=quiet)
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    for words in ("--init a/b", "nearest in", "--labels", "--evaluations", "--steps 12 --minutes 1"):
        assert any(words in line for line in lines), words
    assert "good.pth" in str(caught.value) and "is data" in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"toy\.py"):
        run_grid(toy.grid(config=str(toy.folder / "toi.py")), say=quiet)
    (toy.folder / "data/train.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.txt"):
        run_grid(toy.grid(), say=quiet)
    assert not toy.started()
