"""A folder of everything that can be wrong about a file: photos, lists, configs, checkpoints, stores of regions."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import DefaultScope
from PIL import Image

from densessl.branches.resnet import ResNet
from densessl.configs import load_config
from densessl.pretraining import link_views
from densessl.regions.build import build
from densessl.registry import MODELS

ROOT = Path(__file__).parents[1]
GRID = dict(type="Grid", scales=(0.5,), aspects=(1.0,), overlap=0.0)

CONFIGS = {
    "tiny.py": f"""
_base_ = {str(ROOT / "configs/pixpro_r18.py")!r}
views = [dict(view, size=32) for view in _base_.views]
model = dict(online=dict(backbone=dict(width=8)))
train_dataloader = dict(batch_size=4, num_workers=0)
train_cfg = dict(max_epochs=1)
optim_wrapper = dict(precision="fp32")
""",
    "regions.py": f"""
_base_ = {str(ROOT / "configs/small/ccop_r18.py")!r}
train_dataloader = dict(batch_size=4, num_workers=0)
train_cfg = dict(max_epochs=1)
""",
    "broken.py": "model = dict(type='TwoBranch'\n",
    "divides.py": "model = dict(depth=1 / 0)\n",
    "imports.py": "import no_such_module\nmodel = dict(type='TwoBranch')\n",
    "no_config.py": "def main():\n    return 1\n",
    "base_missing.py": "_base_ = './nowhere.py'\n",
    "no_hooks.py": "_base_ = './tiny.py'\ndefault_hooks = dict(step=None, lr=None, export=None)\n",
    "twins.py": """
_base_ = './tiny.py'
model = dict(objectives=[dict(type='SimSiam', name='a'), dict(type='BYOL', name='a')])
""",
    "masks.py": """
_base_ = './tiny.py'
views = [dict(view, mask=dict(type='random', patch_size=16, hidden=0.5)) for view in _base_.views]
model = dict(objectives=[dict(type='SIM', views=(0, 1))])
""",
    "segments.py": f"""
_base_ = {str(ROOT / "configs/densesiam_r18_coco27.py")!r}
views = [dict(view, size=32) for view in _base_.views]
model = dict(
    online=dict(backbone=dict(width=8), neck=dict(out_channels=8)),
    objectives=[dict(_base_.model.objectives[0], hidden=8, classes=4, aux_classes=6)],
)
""",
}


def make_room(room: Path) -> Path:
    """Fill an empty folder, and return it."""
    rng = np.random.default_rng(0)
    for name, count in {"photos": 9, "one": 1, "others": 3, "classes/a": 2, "classes/b": 2}.items():
        Path(room, name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(room / name / f"{name[0]}{number}.png")
    shutil.copytree(room / "photos", room / "labels")  # with colours, which no labels have
    for name in ("empty", "notes"):
        Path(room, name).mkdir()
    coco = {
        "images": [{"id": 1, "file_name": "gone.png", "width": 60, "height": 50}],
        "annotations": [],
        "categories": [],
    }
    texts = {
        "notes/read.me": "no image\n",
        "photos.txt": "".join(f"photos/p{number}.png\n" for number in range(9)),
        "empty.txt": "\n# nothing\n",
        "gone.txt": "photos/gone.png\n",
        "list.json": "[1, 2]",
        "broken.json": '{"images": [',
        "no_images.json": '{"images": []}',
        "gone.json": json.dumps(coco),
        "photos.csv": "a,b\n",
        "a_file": "text\n",
        "words.json": '{"sky": "blue"}',
        "text.pth": "these are no weights\n",
        **CONFIGS,
    }
    for name, text in texts.items():
        Path(room, name).write_text(text)
    checkpoints(room)
    stores(room)
    return room


def checkpoints(room: Path) -> None:
    """Files of weights: whole, cut off, of another network, of nothing that is a network."""
    state = {f"online.backbone.{key}": value for key, value in ResNet(depth=18, width=8).state_dict().items()}
    about = {"densessl": {"backbone": dict(type="ResNet", depth=18, width=8), "normalize": None}}
    torch.save({"state_dict": state, "meta": about}, room / "ours.pth")
    torch.save({"state_dict": state, "meta": {}}, room / "unknown.pth")
    torch.save(
        {"state_dict": state, "meta": {"densessl": {"backbone": dict(type="ResNet", depth=50)}}}, room / "liar.pth"
    )
    torch.save({"backbone.conv1.weight": torch.ones(8, 3, 7, 7)}, room / "part.pth")
    segmentor(room)
    torch.save(torch.ones(3), room / "tensor.pth")
    torch.save({"weights": Path("code")}, room / "code.pth")
    Path(room, "cut.pth").write_bytes(Path(room, "ours.pth").read_bytes()[:5000])
    Path(room, "empty.pth").write_bytes(b"")


def segmentor(room: Path) -> None:
    """Weights of the model of ``segments.py``."""
    cfg = load_config(str(room / "segments.py"))
    link_views(cfg)
    with DefaultScope.overwrite_default_scope("densessl"):
        torch.save({"state_dict": MODELS.build(cfg.model).state_dict()}, room / "segmentor.pth")


def stores(room: Path) -> None:
    """Stores of regions: whole, of other photos, damaged."""
    build(room / "photos", room / "store", GRID)
    build(room / "others", room / "store_of_others", GRID)
    shutil.copytree(room / "store", room / "store_damaged")
    boxes = room / "store_damaged/boxes.bin"
    boxes.write_bytes(boxes.read_bytes()[:-10])
    shutil.copytree(room / "store", room / "store_unfinished")
    Path(room, "store_unfinished/manifest.json").unlink()
