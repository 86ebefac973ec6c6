"""Configs that were exported before packages moved go on working."""

import pytest
from mmengine.registry import DATASETS, HOOKS, MODELS

from densessl.configs import load_config
from densessl.errors import LoadError
from densessl.weights.load import load_backbone

OLD = """
_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["densessl.compat", "densessl.transfer", "densessl.transfer.categories"],
                      allow_failed_imports=False)
custom_hooks = [dict(type="densessl.LoadBackboneHook", checkpoint="r50.pth")]
"""


@pytest.mark.det
def test_a_config_that_imports_densessl_transfer_finds_what_it_names(tmp_path):
    (tmp_path / "old.py").write_text(OLD)
    cfg = load_config(str(tmp_path / "old.py"))
    hook = HOOKS.build(cfg.custom_hooks[0])
    assert type(hook).__module__ == "densessl.finetune.load_hooks" and hook.checkpoint == "r50.pth"
    assert HOOKS.get("densessl.LoadDetectorHook") and MODELS.get("densessl.ViTDet") and MODELS.get("densessl.Res5Head")
    assert DATASETS.get("densessl.OneClassCocoDataset").__module__ == "densessl.finetune.categories"


def test_its_functions_are_the_same_objects():
    import densessl.transfer as older

    assert older.load_backbone is load_backbone and older.LoadError is LoadError
    assert all(hasattr(older, name) for name in older.__all__)
