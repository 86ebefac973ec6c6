"""Every setting of a run on a line: value, origin, meaning."""

import re
from pathlib import Path

import pytest

from densessl.cli.train import settings_of
from densessl.runs import explain_run
from densessl.settings import check_config, explain, origins_of
from densessl.settings.docstrings import meanings_of
from densessl.settings.origins import origin_of, overridden
from tests.settings.run_of import CONFIGS, run_of

BASE = """\
views = [
    dict(size=224, hflip=0.5),
    dict(size=96),
]
model = dict(
    type="A",
    backbone=dict(
        depth=50,
        norm=dict(type="BN"),
    ),
    heads={"first": 1, "second": 2},
)
hooks = [dict(type="One"), dict(type="Two", interval=1)]
gone = dict(a=1, b=2)
kept = dict(a=1)
"""
CHILD = """\
_base_ = ["base.py"]
side = 160

model = dict(
    backbone=dict(depth=18),
)
views = [dict(view, size=side) for view in _base_.views]
hooks = _base_.hooks
hooks[1]["interval"] = 2
hooks[0].update(type="Three", when=dict(at=3))
gone = dict(
    _delete_=True, c=3)
kept["b"] = 2
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "base.py").write_text(BASE)
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_origins_are_the_lines_that_assign(folder):
    origins = origins_of("base.py")
    expected = {
        "views.0.size": 2,
        "views.1.size": 3,
        "views": 1,
        "model.type": 6,
        "model.backbone.depth": 8,
        "model.backbone.norm.type": 9,
        "model.heads.second": 11,
        "hooks.1.interval": 13,
    }
    assert {path: origins[path] for path in expected} == {path: f"base.py:{line}" for path, line in expected.items()}


def test_what_a_file_says_wins_over_its_base(folder):
    origins = origins_of(str(folder / "child.py"))
    assert origin_of("model.backbone.depth", origins) == "child.py:5"
    assert origin_of("model.backbone.norm.type", origins) == "base.py:9", "dicts are merged"
    assert origin_of("views.1.size", origins) == "child.py:7", "a computed list takes the place of the base's"
    assert origin_of("hooks.1.interval", origins) == "child.py:9"
    assert origin_of("hooks.1.type", origins) == "child.py:8"
    assert origin_of("hooks.0.when.at", origins) == "child.py:10"
    assert origin_of("gone.c", origins) == "child.py:12" and "gone.a" not in origins, "_delete_"
    assert origin_of("kept.b", origins) == "child.py:13" and origin_of("kept.a", origins) == "base.py:15"
    assert origin_of("nothing.at.all", origins) is None and "_base_" not in origins


def test_options_take_the_place_of_lines(folder):
    origins = overridden(origins_of("base.py"), ["views.*.size", "model.backbone"], "command line")
    assert [origin_of(f"views.{view}.size", origins) for view in (0, 1)] == ["command line"] * 2
    assert origin_of("views.0.hflip", origins) == "base.py:2"
    assert origin_of("model.backbone.norm.type", origins) == "command line"
    assert origin_of("model.type", origins) == "base.py:6"


def line_of(config, text):
    """The number of the first line of a shipped config that has a text."""
    lines = (CONFIGS / config).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


@pytest.mark.det
def test_bases_of_packages_are_followed():
    long, short = "transfer/coco/detr_r50_300e.py", "transfer/coco/detr_r50_150e.py"
    origins = origins_of(CONFIGS / long)
    assert origins["train_cfg.max_epochs"].endswith(f"configs/{long}:{line_of(long, 'max_epochs=300')}")
    initial = origin_of("model.backbone.init_cfg", origins)
    assert initial.endswith(f"configs/{short}:{line_of(short, 'init_cfg=None')}")
    assert origin_of("model.backbone.depth", origins).startswith("mmdet::detr/detr_r50_8xb2-150e_coco.py:")
    assert origin_of("env_cfg.cudnn_benchmark", origins).startswith("mmdet::_base_/default_runtime.py:")


def test_every_setting_has_a_line_with_value_origin_and_meaning():
    option = "model.objectives.1.temperature"
    cfg = run_of("small/lcloss_r18.py", {option: 0.1})
    cfg.jitter = dict(p=1)
    origins = overridden(origins_of(CONFIGS / "small/lcloss_r18.py"), [option], "command line")
    lines = {line.partition(" = ")[0]: line.partition(" = ")[2] for line in explain(cfg, origins).splitlines()}
    assert lines[option] == "0.1   (command line)   softmax temperature [above 0]"
    assert lines["model.objectives.1.mean"].startswith('\'global\'   (default)   "global" or "local"')
    assert lines["model.objectives.0.type"].startswith("'BYOL'   (")
    assert lines["model.objectives.0.level"].startswith("1   (")
    line = line_of("small/lcloss_r18.py", 'dict(type="BYOL"')
    assert f"small/lcloss_r18.py:{line})" in lines["model.objectives.0.level"]
    assert lines["views.0.vflip"] == "0.0   (default)   probability of mirroring left-right and top-bottom [0 to 1]"
    assert lines["default_hooks.lr.schedule.final"] == "0.0   (default)   value at the end of the run"
    assert "small_r18.py:" in lines["train_dataloader.batch_size"]
    assert lines["train_dataloader.batch_size"].endswith(" [at least 1 or 'auto']")
    assert lines["jitter"] == "{'p': 1}   ()   a variable of the config, which nothing reads"
    linked = ("train_dataloader.dataset.views", "model.data_preprocessor.views")  # stated once, at the top
    assert not any(name.startswith(linked) for name in lines)


def test_what_is_given_is_explained_once_and_completely():
    cfg = run_of("small/densecl_r18.py")
    lines = explain(cfg).splitlines()
    paths = [line.partition(" = ")[0] for line in lines]
    assert len(paths) == len(set(paths))
    given = {path for path, line in zip(paths, lines) if "(default)" not in line}
    leaves = set(_leaves("", cfg.to_dict()))
    linked = ("train_dataloader.dataset.views", "model.data_preprocessor.views")  # stated once, at the top
    assert {leaf for leaf in leaves if not leaf.startswith((*linked, "demo"))} <= given


def _leaves(path, value):
    if isinstance(value, dict) and value:
        return [leaf for key, entry in value.items() for leaf in _leaves(f"{path}.{key}".lstrip("."), entry)]
    if isinstance(value, list | tuple) and any(isinstance(entry, dict) for entry in value):
        return [leaf for number, entry in enumerate(value) for leaf in _leaves(f"{path}.{number}", entry)]
    return [path]


def test_a_wrong_config_is_explained_too():
    cfg = run_of("small/densecl_r18.py", {"model.objectives.0.tempreature": 1})
    assert check_config(cfg) and "model.objectives.0.dim = 128" in explain(cfg)


def test_markup_of_other_libraries_is_left_out():
    def kind(device):
        """Make something.

        Args:
            device (str, optional): the current :ref:`accelerator<accelerators>` of :class:`torch.cuda.Stream`.
        """

    assert meanings_of(kind) == {"device": "the current accelerator of Stream"}


@pytest.mark.parametrize(
    ("words", "origin"),
    [
        (["--batch-size", "4"], r"configs/[\w/]+\.py:\d+; linear rule: 0\.0625 for 4 images a step"),
        (
            ["--batch-size", "4", "--set", "optim_wrapper.optimizer.lr=2.0"],
            "command line; linear rule: 0.125 for 4",
        ),
        (["--batch-size", "4", "--set", "default_hooks.lr.rule=sqrt"], "sqrt rule: 0.25 for 4 images a step"),
        (["--batch-size", "16", "--set", "optim_wrapper.accumulative_counts=4"], r"\.py:\d+\)"),
    ],
)
def test_the_rule_that_scales_the_learning_rate_is_an_origin(words, origin):
    """The recipe's rate 1 is for 64 images a step."""
    lines = explain_run(settings_of(["pixpro_r18", *words])).splitlines()
    (line,) = (line for line in lines if line.startswith("optim_wrapper.optimizer.lr = "))
    assert re.search(origin, line), line
    assert ("rule" in line.partition(")")[0]) == ("16" not in words)
