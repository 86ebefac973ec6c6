"""Classes of densessl that a config names without importing their modules."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from densessl.registry import DATASETS, MODELS, PRETEXTS

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from mmdet.registry import DATASETS, MODELS
from mmengine.registry import HOOKS
for registry, name in ((DATASETS, "NamedCocoDataset"), (HOOKS, "LoadBackboneHook"), (MODELS, "ViTDet")):
    assert registry.get(f"densessl.{name}").__name__ == name
from densessl.registry import PRETEXTS
from densessl.settings.lookup import UnknownType, find
for name in ("DETReg", "PairDETR", "DETRegs"):
    try:
        find(PRETEXTS, name, "mmdet")
    except UnknownType as error:
        print(error)
"""


@pytest.mark.det
def test_stock_registries_find_ours_and_our_check_names_the_module(tmp_path):
    """In a process of its own, where nothing of densessl is imported before."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", CODE]
    found = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert [line for line in found.stdout.splitlines() if "OneDL" not in line] == [
        "'DETReg' is unknown; for densessl.DETReg add 'densessl.detectors.detreg' to custom_imports.imports",
        "'PairDETR' is unknown; for densessl.PairDETR add 'densessl.detectors.pair' to custom_imports.imports",
        "'DETRegs' is unknown; known: ",
    ]


@pytest.mark.det
def test_every_registered_class_of_a_module_that_imports_mmdet_is_found_by_its_name():
    import densessl.detectors
    import densessl.finetune.categories

    places = ("densessl.detectors", "densessl.finetune.categories")
    registered = [kind for each in (DATASETS, MODELS, PRETEXTS) for kind in each.module_dict.values()]
    names = {kind.__name__ for kind in registered if kind.__module__.startswith(places)}
    assert names == set(densessl._TYPES)
    assert all(getattr(densessl, name).__name__ == name for name in names)


@pytest.mark.det
def test_a_stock_data_set_becomes_ours_by_its_type_alone(tmp_path):
    """MMDetection's own entries, such as ``backend_args=None``, stay as they are."""
    from densessl.configs import load_config
    from densessl.settings import check_config

    path = tmp_path / "named.py"
    path.write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n"
        "train_dataloader = dict(dataset=dict(type='densessl.NamedCocoDataset'))\n"
        "val_dataloader = dict(dataset=dict(type='NamedCocoDataset'))\n"
        "custom_hooks = [dict(type='densessl.LoadBackboneHooks')]\n"
    )
    named, hook = check_config(load_config(path))
    assert named.startswith("val_dataloader.dataset.type: 'NamedCocoDataset' is unknown; did you mean densessl.Named")
    assert "did you mean densessl.LoadBackboneHook or" in hook
