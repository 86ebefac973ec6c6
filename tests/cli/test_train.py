"""`tools/train.py` from the command line to the exported backbone, on a model shrunk to seconds."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.cli.train import main, settings_of
from densessl.configs import load_config
from densessl.runs import run_config
from densessl.weights.io.checkpoints import load_weights, read_checkpoint

CONFIG = "configs/pixpro_r18.py"
ROOT = Path(__file__).parents[2]
TINY = {
    "views.0.size": 32,
    "views.1.size": 32,
    "model.online.backbone.width": 8,
    "model.objectives.0.hidden": 16,
    "model.objectives.0.dim": 8,
    "train_dataloader.batch_size": 4,
    "train_dataloader.num_workers": 0,
    "train_cfg.max_epochs": 2,
    "default_hooks.checkpoint.interval": 1,
    "optim_wrapper.precision": "fp32",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(9):
        Image.fromarray(rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def options(**changes):
    return [f"{key}={value}" for key, value in {**TINY, **changes}.items()]


def train(photos, work_dir, *arguments, **changes):
    changes.setdefault("experiment_name", f"run_{Path(work_dir).name}{len(arguments)}")
    return main(
        [
            CONFIG,
            "--data-root",
            str(photos),
            "--work-dir",
            str(work_dir),
            *arguments,
            "--cfg-options",
            *options(**changes),
        ]
    )


def test_a_run_leaves_checkpoint_metrics_and_a_backbone(photos, tmp_path):
    assert train(photos, tmp_path) == 0
    checkpoint = read_checkpoint(tmp_path / "epoch_2.pth")
    assert checkpoint["state_dict"]["global_step"] == 4  # 2 epochs of 9 // 4 steps
    assert checkpoint["meta"]["densessl"]["backbone"]["depth"] == 18
    weights = load_weights(tmp_path / "backbone.pth")
    online = {k: v for k, v in checkpoint["state_dict"].items() if k.startswith("online.backbone.")}
    assert len(weights) == len(online)
    assert all(torch.equal(weights[name.removeprefix("online.")], value) for name, value in online.items())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4 and {"loss", "lr", "images_per_second", "data_wait"} <= lines[-1].keys()
    assert any(tmp_path.rglob("events.out.tfevents*"))


def test_the_learning_rate_of_the_command_line_is_the_one_that_trains(photos, tmp_path):
    """One step from the same weights w: rates of 0, 1 and 2 for 64 images leave w, w + d and w + 2d."""
    weights = []
    for rate in (0.0, 1.0, 2.0):
        one_step = {"train_dataloader.batch_size": 8, "train_cfg.max_epochs": 1, "views.0.size": 16, "views.1.size": 16}
        changes = {"optim_wrapper.optimizer.lr": rate, "default_hooks.lr.schedule.warmup_epochs": 0, **one_step}
        assert train(photos, tmp_path / str(rate), **changes) == 0
        (line,) = (tmp_path / str(rate) / "metrics.jsonl").read_text().splitlines()
        assert json.loads(line)["lr"] == rate * 8 / 64
        weights.append(load_weights(tmp_path / str(rate) / "backbone.pth")["backbone.layer4.1.conv2.weight"])
    assert (weights[1] - weights[0]).abs().max() > 1e-6
    torch.testing.assert_close(weights[2] - weights[0], 2 * (weights[1] - weights[0]), rtol=0, atol=1e-7)


def test_resuming_at_an_epoch_boundary_continues_bit_for_bit(photos, tmp_path):
    """Three epochs straight, or stopped after one and resumed with two more, under accumulation."""
    shared = {"train_cfg.max_epochs": 3, "optim_wrapper.accumulative_counts": 2, "train_dataloader.batch_size": 2}
    assert train(photos, tmp_path / "straight", **shared) == 0
    assert train(photos, tmp_path / "stopped", **shared) == 0
    for epoch in (2, 3):  # as if it had been stopped after epoch 1
        (tmp_path / f"stopped/epoch_{epoch}.pth").unlink()
    (tmp_path / "stopped/last_checkpoint").write_text(str(tmp_path / "stopped/epoch_1.pth"))
    assert train(photos, tmp_path / "stopped", "--resume", **shared) == 0
    straight, resumed = (read_checkpoint(tmp_path / name / "epoch_3.pth") for name in ("straight", "stopped"))
    for name, value in straight["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], value), name
    first, second = (c["optimizer"]["state"] for c in (straight, resumed))
    assert first.keys() == second.keys() and first
    for key, state in first.items():
        assert all(torch.equal(second[key][name], value) for name, value in state.items() if torch.is_tensor(value))


def test_what_cannot_be_resumed_ends_with_exit_code_2(photos, tmp_path, capsys):
    one = {"train_cfg.max_epochs": 1}
    assert train(photos, tmp_path, **one) == 0
    assert train(photos, tmp_path, "--resume", **one, **{"train_dataloader.batch_size": 2}) == 2
    text = "".join(capsys.readouterr())
    assert "it was trained with 4 images a step" in text and "Give --batch-size 4, or start" in text
    (tmp_path / "cut.pth").write_bytes((tmp_path / "epoch_1.pth").read_bytes()[:5000])
    assert train(photos, tmp_path, "--resume", str(tmp_path / "cut.pth"), **one) == 2
    assert "cut.pth is not a readable checkpoint" in "".join(capsys.readouterr())


def test_an_automatic_batch_is_that_of_the_run_that_is_resumed(photos, tmp_path, capsys):
    """One photo more, which would make the batch larger; and a run whose batch was given says which one."""
    shutil.copytree(photos, tmp_path / "photos")
    automatic = {"train_dataloader.batch_size": "auto"}
    assert train(tmp_path / "photos", tmp_path / "a", **automatic, **{"train_cfg.max_epochs": 1}) == 0
    shutil.copy(photos / "0.png", tmp_path / "photos/another.png")
    assert train(tmp_path / "photos", tmp_path / "a", "--resume", **automatic) == 0
    for epoch in (1, 2):
        run = read_checkpoint(tmp_path / f"a/epoch_{epoch}.pth")["meta"]["run"]
        assert (run["batch_size"], run["settled"]) == (9, {"train_dataloader.batch_size": 9})
    assert train(photos, tmp_path / "b", **{"train_cfg.max_epochs": 1, "train_dataloader.batch_size": 8}) == 0
    capsys.readouterr()
    assert train(photos, tmp_path / "b", "--resume", **automatic) == 2
    assert "Give --batch-size 8, or start a new run" in "".join(capsys.readouterr())


def test_two_processes_train_the_model_of_one(photos, tmp_path):
    """torchrun on CPUs with batch 2 each against one process with batch 4: same steps up to fp32 rounding."""
    train(photos, tmp_path / "one", **{"train_cfg.max_epochs": 1})
    small = options(**{"train_dataloader.batch_size": 2, "train_cfg.max_epochs": 1})
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "tools/train.py"),
            *(CONFIG, "--data-root", str(photos), "--work-dir", str(tmp_path / "two"), "--launcher", "pytorch"),
            *("--cfg-options", *small),
        ],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=180,
    )
    one, two = (read_checkpoint(tmp_path / name / "epoch_1.pth")["state_dict"] for name in ("one", "two"))
    assert one["global_step"] == two["global_step"] == 2
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, rtol=2e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_missing_data_says_where_and_what_to_do(tmp_path, capsys):
    assert main([CONFIG, "--data-root", str(tmp_path / "nowhere"), "--work-dir", str(tmp_path)]) == 2
    text = capsys.readouterr()
    text = text.out + text.err
    assert str(tmp_path / "nowhere") in text and "--data-root" in text and "--demo" in text


def test_a_missing_config_names_its_neighbours(capsys):
    assert main(["configs/pixpro_r51.py"]) == 2
    assert "pixpro_r50.py" in "".join(capsys.readouterr())


def config(*arguments):
    return run_config(settings_of(list(arguments)))


def test_overridden_views_reach_data_set_and_preprocessor():
    cfg = config("configs/pixpro_r50.py", "--cfg-options", "views.1.size=64")
    assert cfg.train_dataloader.dataset.views[1]["size"] == cfg.model.data_preprocessor.views[1]["size"] == 64
    assert cfg.train_dataloader.dataset.views[0]["size"] == 224


def test_demo_keeps_model_and_objective(tmp_path):
    demo = config("configs/pixpro_r50.py", "--demo", "--work-dir", str(tmp_path))
    full = config("configs/pixpro_r50.py")
    assert demo.model.to_dict() == full.model.to_dict() and demo.views == full.views
    assert demo.train_cfg.max_epochs < full.train_cfg.max_epochs
    assert demo.train_dataloader.dataset.source == str(tmp_path / "demo_photos")
    assert not any(tmp_path.iterdir()), "the photos are made when the run is"


def test_the_published_recipes_effective_batch():
    for name, epochs in (("pixpro_r50", 100), ("pixpro_r50_400e", 400)):
        cfg = load_config(f"configs/{name}.py")
        assert cfg.train_cfg.max_epochs == epochs and cfg.train_dataloader.batch_size * 8 == 1024
        assert cfg.default_hooks.lr.reference_batch == 1024 and cfg.optim_wrapper.optimizer.lr == 4.0


@pytest.mark.parametrize(
    "words", [["--labels", "10%"], ["--labels-seed", "1"], ["--steps", "9"], ["--evaluations", "2"], ["--regions", "x"]]
)
def test_words_of_other_configs_are_refused(words, capsys):
    assert main([CONFIG, *words]) == 2
    text = "".join(capsys.readouterr())
    assert f"error: {words[0]} is for" in text and CONFIG in text


def test_a_seed_is_that_of_the_run_and_random_numbers_need_no_hook():
    cfg = config(CONFIG, "--seed", "3", "--init", "none")
    assert cfg.randomness.seed == 3
    assert cfg.default_hooks.init.checkpoint is None


def test_weights_that_do_not_fit_end_the_process(photos, tmp_path, capsys):
    (tmp_path / "damaged.pth").write_bytes(b"no checkpoint")
    assert train(photos, tmp_path / "one", "--init", str(tmp_path / "damaged.pth")) == 2
    assert "damaged.pth is not a readable checkpoint" in "".join(capsys.readouterr())
    torch.save({"backbone.conv1.weight": torch.ones(8, 3, 7, 7)}, tmp_path / "part.pth")
    assert train(photos, tmp_path / "two", "--init", str(tmp_path / "part.pth")) == 2
    assert "was trained in another network" in "".join(capsys.readouterr())
    assert not list(tmp_path.rglob("epoch_*.pth"))


def test_launching_needs_no_detector(tmp_path):
    """Neither mmdet nor mmcv is imported, whatever the process did before."""
    code = "import sys, densessl.cli.train as launch; launch.parser()"
    code += "; sys.exit(any(name.partition('.')[0] in ('mmdet', 'mmcv', 'mmseg') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


@pytest.mark.det
def test_a_stock_detector_config_gets_data_root_and_operators():
    cfg = config("mmdet::retinanet/retinanet_r50_fpn_1x_coco", "--data-root", "somewhere/coco")
    assert cfg.train_dataloader.dataset.data_root == "somewhere/coco/"
    assert cfg.val_evaluator.ann_file == "somewhere/coco/annotations/instances_val2017.json"
    assert "densessl.compat" in cfg.custom_imports["imports"]
    assert cfg.work_dir == "work_dirs/retinanet_r50_fpn_1x_coco"
    with pytest.raises(ValueError, match="--demo is for pretraining configs"):
        config("mmdet::retinanet/retinanet_r50_fpn_1x_coco", "--demo")
