"""What the documentation shows is what runs."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.registry import OBJECTIVES
from tests.objectives.cases import Case
from tests.objectives.toy import take_step, toy_batch, toy_model, without_overlap

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def blocks(name: str, heading: str) -> list[str]:
    """The Python blocks of a section."""
    section = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", (DOCS / name).read_text(), re.M | re.S).group(1)
    return re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)


def test_the_worked_example_trains():
    objective, _, case = blocks("methods.md", "Add a method")
    exec(objective, {})
    try:
        scope = {"Case": Case}
        exec(case, scope)
        (case,) = scope["CASES"].values()
        model = toy_model(case.objectives)
        losses = [take_step(model, toy_batch()).item() for _ in range(6)]
        assert losses[-1] < 0.8 * losses[0]
        figures = model.loss(without_overlap(toy_batch(), [0, 1, 2, 3]))
        assert figures["pointregression.valid_pairs"] == 0
        assert figures["pointregression.loss"] == 1
        assert torch.isfinite(model.parse_losses(figures)[0])
        assert case.collapsed[0] in figures
    finally:
        OBJECTIVES.module_dict.pop("PointRegression")


def test_the_python_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0)
    for number in range(8):
        pixels = noise.integers(0, 256, (48, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{number}.png")
    scope: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", (DOCS / "python.md").read_text(), re.M | re.S):
        exec(block, scope)
    assert scope["run"].weights.resolve() == tmp_path / "runs/a/backbone.pth"
    assert len(scope["losses"]) and scope["model"].step == 2 and scope["report"].coverage == 1
    assert (tmp_path / "backbone.safetensors").is_file()


def test_every_method_has_its_row():
    ours = {name for name, kind in OBJECTIVES.module_dict.items() if kind.__module__.startswith("densessl.")}
    table = (DOCS / "methods.md").read_text()
    assert [name for name in sorted(ours) if f"| `{name}` |" not in table] == []
    configs = [*(ROOT / "configs").glob("*.py"), *(ROOT / "configs/mix").glob("*.py")]
    assert [path.name for path in configs if path.name not in table] == []


def test_every_protocol_of_transfer_has_its_row():
    pages = "".join((DOCS / name).read_text() for name in ("transfer.md", "detectors.md"))
    paths = [path.relative_to(ROOT).as_posix() for path in (ROOT / "configs/transfer").glob("[!_]*/*.py")]
    assert paths and [path for path in paths if f"`{path}`" not in pages] == []


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{path.name}" for path in sorted(DOCS.glob("*.md")))])
def test_paths_that_are_named_exist(name):
    text = (ROOT / name).read_text()
    paths = re.findall(r"`((?:configs|densessl|docs|tests|tools|benchmarks)/[\w./-]+)`", text)
    assert paths or name not in ("README.md", "docs/methods.md", "docs/architecture.md")
    assert [path for path in paths if not (ROOT / path).exists()] == []
