"""A comparison that takes no time: a config, data and two starts for the stand-in trainer."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from densessl.comparison import Grid

CONFIG = """
name = "{{$COMPARED:toy}}"
optim_wrapper = dict(lr=0.1)
log_level = "INFO"
custom_hooks = [dict(type="densessl.LoadBackboneHook", checkpoint=None)]
train_dataloader = dict(dataset=dict(type="Toy", data_root="nowhere/", ann_file="train.txt"))
"""


@dataclass
class Toy:
    folder: Path

    def grid(self, **changes) -> Grid:
        settings = dict(
            config=str(self.folder / "toy.py"),
            inits={"random": None, "ours": str(self.folder / "good.pth")},
            out=self.folder / "out",
            seeds=(0, 1),
            labels=("10%", "all"),
            steps=12,
            evaluations=3,
            data_root=str(self.folder / "data"),
            trainer=(str(Path(__file__).parent / "trainer.py"),),
        )
        return Grid(**{**settings, **changes})

    def small(self, **changes) -> Grid:
        """Two runs."""
        return self.grid(**{"seeds": (0,), "labels": ("all",), **changes})

    def started(self) -> list[str]:
        """Names of the runs that were begun, in order."""
        path = self.folder / "out/runs/started"
        return path.read_text().split() if path.exists() else []


@pytest.fixture
def toy(tmp_path):
    (tmp_path / "toy.py").write_text(CONFIG)
    for name in ("good", "bad", "slow", "silent", "empty"):
        (tmp_path / f"{name}.pth").write_text(name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.txt").write_text("000001\n000002\n")
    return Toy(tmp_path)
