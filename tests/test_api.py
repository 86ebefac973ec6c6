"""The Python face: names, one-call pretraining, and that it is the run of the command line."""

import importlib
import inspect
import pkgutil
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

import densessl
from densessl.branches import build_backbone
from densessl.cli import main
from densessl.errors import DensesslError, SettingError
from densessl.run_settings import RunSettings
from densessl.weights.io.checkpoints import load_weights, read_checkpoint
from tests.photos import write_photos

ROOT = Path(__file__).parents[1]
RESNET = dict(type="ResNet", depth=18, width=8)
OPTIONS = {"model.objectives.0.hidden": 16, "model.objectives.0.dim": 8, "model.online.backbone.width": 8}
TINY = dict(method="pixpro", backbone="resnet18", size=32, batch_size=4, epochs=1, workers=0, precision="fp32")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def first(photos, tmp_path_factory):
    """A run of two steps."""
    return densessl.pretrain(photos, out=tmp_path_factory.mktemp("first"), **TINY, options=OPTIONS)


def log(work_dir):
    (path,) = work_dir.glob("*/*.log")
    return path.read_text()


def test_importing_densessl_imports_nothing_heavy():
    heavy = ("torch", "mmengine", "mmcv", "mmdet", "numpy", "PIL")
    code = f"import sys, densessl; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert found.stdout == "[]\n", found.stderr


def test_every_name_is_there_and_documented():
    for name in densessl.__all__:
        value = getattr(densessl, name)
        assert name == "__version__" or inspect.getdoc(value), name
        assert name in dir(densessl)
    with pytest.raises(AttributeError, match="module 'densessl' has no attribute 'pretrian'"):
        densessl.pretrian  # noqa: B018


@pytest.mark.det
def test_no_name_is_that_of_a_module():
    """Importing a submodule would put it in the name's place."""
    modules = {module.name for module in pkgutil.iter_modules(densessl.__path__)}
    assert modules & set(densessl.__all__) == {"compat"}  # which is one
    for module in modules:
        importlib.import_module(f"densessl.{module}")
    assert all(not inspect.ismodule(getattr(densessl, name)) for name in densessl.__all__ if name != "compat")


def test_type_checkers_see_the_names_that_there_are():
    text = (ROOT / "densessl/__init__.py").read_text().partition("if TYPE_CHECKING:\n")[2].partition("\n\n\n")[0]
    imported = {}
    for module, names in re.findall(r"^    from densessl\.([\w.]+) import (.+)$", text, re.M):
        imported |= dict.fromkeys(names.split(", "), module)
    assert imported == densessl._MODULES
    assert sorted(densessl.__all__) == sorted([*imported, "__version__", "compat"])


def test_pretraining_leaves_weights_that_load(first):
    checkpoint = read_checkpoint(first.checkpoint)
    assert first.checkpoint == first.work_dir / "epoch_1.pth" and first.weights == first.work_dir / "backbone.pth"
    assert checkpoint["state_dict"]["global_step"] == 2  # 9 // 4
    backbone = build_backbone(RESNET)
    report = densessl.load_backbone(backbone, first.weights)
    assert report.applied and report.coverage == 1
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, checkpoint["state_dict"][f"online.backbone.{name}"]), name


def test_settings_reach_the_run(photos, first, tmp_path):
    """From the weights of the first run, at a rate of 0, statistics move and nothing else."""
    settings = dict(TINY, size=48, batch_size=3, epochs=2, log_every=1, save_every=2, accumulate=3, seed=5)
    run = densessl.pretrain(
        str(photos), out=str(tmp_path), init=first.weights, lr=0.0, weight_decay=0.5, options=OPTIONS, **settings
    )
    cfg = Config.fromfile(tmp_path / "pixpro_r18.py")
    assert [view.size for view in cfg.views] == [48, 48] and cfg.randomness.seed == 5
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.5 and cfg.optim_wrapper.precision == "fp32"
    assert [path.name for path in sorted(tmp_path.glob("epoch_*.pth"))] == ["epoch_2.pth"]
    assert read_checkpoint(run.checkpoint)["state_dict"]["global_step"] == 2  # 2 epochs x 9 // 3 / 3 accumulated
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 6
    before, after = load_weights(first.weights), load_weights(run.weights)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("running_" in name or "num_batches" in name for name in moved)


def test_options_have_the_last_word(photos, tmp_path):
    options = {**OPTIONS, "optim_wrapper.optimizer.lr": 0.25, "train_cfg.max_epochs": 2, "views.1.size": 16}
    densessl.pretrain(photos, out=tmp_path, lr=3.0, **TINY, options=options)
    cfg = Config.fromfile(tmp_path / "pixpro_r18.py")
    assert cfg.optim_wrapper.optimizer.lr == 0.25 and cfg.train_cfg.max_epochs == 2
    assert [view.size for view in cfg.views] == [32, 16]


def test_five_photos_are_a_batch_where_it_is_automatic(tmp_path):
    """The recipe's batch is 64; its rate of 1 follows what there is."""
    settings = dict(TINY, data=write_photos(tmp_path / "photos", 5), out=tmp_path / "run", options=OPTIONS)
    run = densessl.pretrain(**{**settings, "batch_size": "auto"})
    text = log(run.work_dir)
    assert text.count("batch_size='auto': 5 images per process, of 5 in all") == 1
    assert "the recipe's 1 is for 64 images a step, this run takes 5; by the linear rule it becomes 0.078125" in text
    del settings["batch_size"]
    with pytest.raises(SettingError) as error:
        densessl.pretrain(**settings)
    assert str(error.value).startswith("train_dataloader.batch_size: found 5 images for a batch of 64")
    assert error.value.exit_code == 2 and "\n" not in str(error.value)


def test_an_automatic_queue_and_length(photos, tmp_path):
    settings = densessl.RunSettings(
        "small/mocov2_r18",
        data_root=str(photos),
        work_dir=str(tmp_path),
        batch_size=3,
        epochs="auto",
        options={"model.objectives.0.length": "auto", "model.online.backbone.width": 8},
    )
    run = densessl.build_run(settings)
    assert run.train_loop.max_epochs == 200 and len(run.model.objectives["moco"].queue.keys("keys")) == 6
    assert log(tmp_path).count("MoCo: length='auto': a queue of 6 keys") == 1
    assert log(tmp_path).count("max_epochs='auto': 200 epochs of 3 steps, 600 steps in all") == 1


@pytest.mark.det
@pytest.mark.parametrize("backbone", ["timm.test_resnet", dict(type="mmdet.MobileNetV2", widen_factor=0.1)], ids=str)
def test_backbones_of_other_libraries_train_and_load(backbone, photos, tmp_path):
    options = {key: value for key, value in OPTIONS.items() if "backbone" not in key}
    run = densessl.pretrain(photos, out=tmp_path, **{**TINY, "backbone": backbone}, options=options)
    built = build_backbone(dict(type=backbone) if isinstance(backbone, str) else backbone)
    assert densessl.load_backbone(built, run.weights).coverage == 1
    state = read_checkpoint(run.checkpoint)["state_dict"]
    assert all(torch.equal(value, state[f"online.backbone.{name}"]) for name, value in built.state_dict().items())


def test_three_ways_to_start_are_one_run(photos, tmp_path, monkeypatch):
    """The script, the command, and the call give the same weights, also where all is the demo's."""
    monkeypatch.chdir(ROOT)
    options = {**OPTIONS, "train_dataloader.dataset.limit": 8, "views.*.size": 32, "train_dataloader.num_workers": 0}
    words = [f"{key}={value}" for key, value in options.items()]
    out = {name: tmp_path / name for name in ("script", "command", "call")}
    script = runpy.run_path("tools/train.py")["main"]
    demo = ["--demo", "--seed", "3", "--epochs", "1", "--set", *words]
    assert script(["configs/pixpro_r18.py", "--work-dir", str(out["script"]), *demo]) == 0
    assert main(["train", "pixpro_r18", "--work-dir", str(out["command"]), *demo]) == 0
    densessl.pretrain(method="pixpro_r18", out=out["call"], demo=True, seed=3, epochs=1, options=options)
    script, command, call = (read_checkpoint(path / "epoch_1.pth")["state_dict"] for path in out.values())
    assert script.keys() == command.keys() == call.keys() and script["global_step"] == 1  # 8 // 6
    for name, value in script.items():
        assert torch.equal(value, command[name]) and torch.equal(value, call[name]), name


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(learning_rate=1, sise=2), "pretrain has no setting 'sise'; did you mean size?"),
        (dict(lrr=0.1), "pretrain has no setting 'lrr'; did you mean lr?"),
        (dict(data=None), "data: found None, expected a folder of images, a list file or a COCO json (or demo=True)"),
        (dict(method="pixpr"), "method 'pixpr' is unknown; did you mean pixpro?"),
        (dict(backbone="resnet19"), "backbone 'resnet19' does not go with pixpro_r50; did you mean resnet18"),
        (dict(backbone=3), "backbone: found 3, expected a name, such as 'resnet18', or a dict(type=…)"),
        (dict(size="big"), "size: found 'big', expected a whole number of pixels"),
        (dict(options=["a"]), "options: found ['a'], expected a dict of values by dotted name"),
        (dict(epochs=0, seed=-1), "--epochs: found 0, expected a whole number of at least 1 or 'auto'"),
        (dict(size=32, method="detreg_detr"), "size: detreg_detr_r50 has no square views"),
        (dict(options={"views.2.size": 3}), "views.2.size: views has 2 entries: expected 0 to 1, or * for all"),
        (dict(data="nowhere"), "no data set at"),
        (dict(init="nowhere.pth"), "no checkpoint nowhere.pth"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told_before_anything_is_built(settings, words, photos, tmp_path):
    with pytest.raises(DensesslError) as error:
        densessl.pretrain(**{"data": photos, "out": tmp_path / "run", **settings})
    assert words in str(error.value) and error.value.exit_code == 2
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(config=None), "config: found None, expected a path"),
        (dict(work_dir=3), "work_dir: found 3, expected a path or None"),
        (dict(resume=""), "resume: found '', expected True, False"),
        (dict(demo="no"), "demo: found 'no', expected True or False"),
        (dict(options=None), "options: found None, expected a dict"),
        (dict(options={3: 4}), "options: found {3: 4}, expected a dict"),
        (dict(launcher="ssh"), "launcher: found 'ssh', expected one of none, pytorch, slurm"),
        (dict(labels=3), "labels: found 3, expected a part such as '10%' or None"),
        (dict(seed=2**32), "--seed: found 4294967296, expected a whole number of at least 0 and at most 4294967295"),
        (dict(batch_size=True), "--batch-size: found True, expected a whole number of at least 1 or 'auto'"),
    ],
    ids=str,
)
def test_run_settings_of_another_type_are_setting_errors(wrong, said):
    with pytest.raises(SettingError, match=re.escape(said)):
        RunSettings(**{"config": "pixpro_r18", **wrong})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(seeds=3), "seeds: found 3, expected a list, such as [3]"),
        (dict(labels="10%"), "labels: found '10%', expected a list, such as ['10%']"),
        (dict(inits=["a"]), "inits: found ['a'], expected a dict of files by name"),
    ],
    ids=str,
)
def test_a_comparison_of_other_types_is_a_setting_error(wrong, said, tmp_path):
    with pytest.raises(SettingError, match=re.escape(said)):
        densessl.compare("mmdet::nowhere", **{"inits": {"a": None}, "out": tmp_path, **wrong})


def test_a_run_is_built_from_settings():
    with pytest.raises(SettingError, match=r"found 'pixpro_r18', expected RunSettings\('pixpro_r18', …\)"):
        densessl.build_run("pixpro_r18")


def test_run_settings_take_paths_and_whole_numbers_of_numpy():
    settings = RunSettings(Path("pixpro_r18"), work_dir=Path("runs/one"), batch_size=np.int64(4), seed=2**32 - 1)
    assert settings == RunSettings("pixpro_r18", work_dir="runs/one", batch_size=4, seed=2**32 - 1)
    assert type(settings.batch_size) is int and type(settings.config) is str
