"""What the documentation shows is what runs."""

import contextlib
import io
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from densessl import api
from densessl.comparison import Grid
from densessl.registry import OBJECTIVES
from densessl.weights.io.checkpoints import load_weights
from tests.finetune.voc_coco_fixtures import write_coco
from tests.objectives.cases import Case
from tests.objectives.toy import take_step, toy_batch, toy_model, without_overlap
from tests.photos import write_photos

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


class Reader:
    """Runs sections of a page in a folder, one after the other. What they print is what their comments say."""

    def __init__(self, page: Path, folder: Path):
        self.sections = re.split(r"^## ", page.read_text(), flags=re.M)[1:]
        self.folder = folder
        self.scope: dict = {}

    def run(self, sections: list[str]) -> None:
        for block in re.findall(r"^```python\n(.*?)^```", "".join(sections), re.M | re.S):
            printed = io.StringIO()
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(printed):
                exec(block, self.scope)
            # A comment beside a print is its output where it has a figure.
            for expected in re.findall(r"^ *print\(.*\)  # (\S+ .*\d.*)$", block, re.M):
                assert expected in printed.getvalue()


@dataclass(frozen=True)
class StoodInFor(Grid):
    """A comparison whose runs log what a training would, at once."""

    trainer: Sequence[str] = (str(ROOT / "tests/compare/trainer.py"),)


@pytest.fixture(scope="session")  # tests of the mark det come last, after those of other modules
def reader(tmp_path_factory):
    """Of docs/python.md, who has run what needs no other library."""
    folder = tmp_path_factory.mktemp("page")
    write_photos(folder / "photos", 8)
    write_coco(folder / "coco")
    reader = Reader(DOCS / "python.md", folder)
    needing = [number for number, text in enumerate(reader.sections) if re.search(r"import.*(mmdet|timm)", text)]
    reader.run(reader.sections[: needing[0]])
    reader.sections = reader.sections[needing[0] :]
    yield reader
    shutil.rmtree(folder / "runs")  # hundreds of megabytes


def assert_same(network, weights):
    """A network has the tensors of a file, and at most a last layer more."""
    state = network.state_dict()
    assert all(torch.equal(state.pop(name.removeprefix("backbone.")), value) for name, value in weights.items())
    assert all(name.startswith("fc.") for name in state)


def test_the_python_page_runs(reader):
    scope, runs = reader.scope, reader.folder / "runs"
    assert scope["run"].weights.resolve() == runs / "a/backbone.pth"
    assert len(scope["curve"]) == 2 and scope["model"].step == 4 and scope["pixpro"].step == 3
    assert torch.isfinite(scope["loss"]) and scope["figures"].keys() > {"loss"}
    assert_same(scope["model"].online.backbone, load_weights(runs / "loop.pth"))
    assert [tuple(level.shape) for level in scope["maps"]] == [(1, 512, 2, 2)]


@pytest.mark.det
def test_the_python_page_runs_with_other_libraries(reader, monkeypatch):
    monkeypatch.setattr(api, "Grid", StoodInFor)
    reader.run(reader.sections)
    scope, runs = reader.scope, reader.folder / "runs"
    for network in (scope["classifier"], scope["features"], scope["network"], scope["detector"].backbone):
        assert_same(network, load_weights(runs / "a/backbone.pth"))
    detector = load_weights(runs / "detr/export.pth")
    assert all(torch.equal(value, scope["detr"].state_dict()[name]) for name, value in detector.items())
    assert scope["results"].missing == 0 and not scope["results"].failures
    assert "| pixpro" in (runs / "compare/results.md").read_text()


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
