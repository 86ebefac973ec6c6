"""Imports run one way: from a floor to its own or a lower one, and no function hides one."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1] / "densessl"
# From the ground up. A room is a module or a package of densessl, or a package in one that stands on another floor.
FLOORS = [
    {"budget", "compat", "errors", "files", "geometry", "loaders", "quiet", "registry", "version"},
    {"constraints", "extras", "run_settings", "signatures", "sizes", "weights.io", "wording"},
    {"augment", "configs", "losses"},
    {"data", "figures", "overrides"},
    {"finetune.labels", "horizon", "preprocessor", "regions", "schedules"},
    {"branches", "correspondence", "counting"},
    {"methods", "objectives"},
    {"weights"},
    {"detectors", "engine", "finetune.config", "model", "on_maps", "pretraining"},
    {"finetune", "insight", "preflight", "settings"},
    {"comparison", "datacheck", "runs"},
    {"api", "transfer"},
    {"cli"},
    {"", "__main__"},  # the package's own face
]
APART = ("finetune.config", "finetune.labels", "weights.io")
# Who may import mmdet, mmcv or mmseg while being imported. densessl.detectors is imported for whole detectors only.
USERS_OF_MMDET = {"compat", "detectors", "finetune"}


class Import(NamedTuple):
    importer: str
    imported: str
    line: int
    inside: bool  # of a function
    reason: bool  # given in a comment beside or above it, or the first of the imports that it follows

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def modules() -> dict[str, Path]:
    files = [path for path in ROOT.rglob("*.py") if "shipped" not in path.relative_to(ROOT).parts]
    names = {".".join(("densessl", *path.relative_to(ROOT).with_suffix("").parts)): path for path in files}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


def imports() -> Iterator[Import]:
    known = modules()
    for module, path in known.items():
        text = path.read_text(encoding="utf-8")
        lines, tree = text.splitlines(), ast.parse(text)
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        inside = {id(node) for function in functions for node in ast.walk(function)}
        for node in (each for each in ast.walk(tree) if isinstance(each, ast.Import | ast.ImportFrom)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}:{node.lineno}: a relative import"
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in known else node.module for name in full]
            first = node.lineno - 1  # of the imports that follow each other
            while lines[first - 1].lstrip().startswith(("import ", "from ")):
                first -= 1
            reason = any("#" in line for line in lines[max(first - 1, 0) : node.lineno])
            for name in names:
                yield Import(module, name, node.lineno, id(node) in inside, reason)


def room(module: str) -> str:
    inner = module.removeprefix("densessl").removeprefix(".")
    return next((each for each in APART if inner == each or inner.startswith(f"{each}.")), inner.partition(".")[0])


def floor(module: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room(module) in rooms)


def of_ours(each: Import) -> bool:
    return each.imported == "densessl" or each.imported.startswith("densessl.")


def test_every_room_has_a_floor():
    assert {room(module) for module in modules()} == set().union(*FLOORS)


def test_no_import_goes_up():
    up = [str(each) for each in imports() if of_ours(each) and floor(each.imported) > floor(each.importer)]
    assert up == []


def test_no_circle():
    graph = defaultdict(set)
    for each in imports():
        if of_ours(each) and each.imported not in ("densessl", each.importer):
            graph[each.importer].add(each.imported)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in graph[module]:
                visit(other, (*path, module))
            done.add(module)

    for module in list(graph):
        visit(module, ())


def test_an_import_inside_a_function_has_a_reason():
    assert [str(each) for each in imports() if each.inside and not each.reason] == []


def test_only_detectors_need_mmdet():
    names = ("mmdet", "mmcv", "mmseg", "timm")
    found = [each for each in imports() if each.imported.partition(".")[0] in names and not each.inside]
    assert found and [str(each) for each in found if room(each.importer) not in USERS_OF_MMDET] == []
