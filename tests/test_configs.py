"""Configs are read by either line of MMEngine."""

import ast
from pathlib import Path

CONFIGS = Path(__file__).parent.parent / "configs"


def _imports_first(path: Path) -> bool:
    """Whether a config imports something before it names its ``_base_``, or has an import and no ``_base_``."""
    body = ast.parse(path.read_text()).body
    imports = [i for i, line in enumerate(body) if isinstance(line, ast.Import | ast.ImportFrom)]
    bases = [i for i, line in enumerate(body) if ast.unparse(line).startswith("_base_ =")]
    return bool(imports) and min(bases, default=len(body)) > imports[0]


def test_configs_name_their_base_before_they_import():
    """MMEngine 0.10.7 takes a config that begins with an import for its lazy kind, in which `_base_` is an error."""
    paths = sorted(CONFIGS.rglob("*.py"))
    assert paths and [path.relative_to(CONFIGS).as_posix() for path in paths if _imports_first(path)] == []
