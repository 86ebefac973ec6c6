"""Configs that mmdet and mmseg carry, by the name of the import package: ``mmseg::fcn/fcn_r50-d8_…``.

MMEngine looks mmseg up as the distribution ``mmsegmentation``, and installs that where it is called otherwise. Here it
is the import package that counts, whoever installed it, and nothing is ever installed.
"""

import re
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config

from densessl.errors import MissingPackage

EXTRAS = {"mmdet": "det", "mmseg": "seg"}  # import packages with configs, and the extra that brings each


def read_config(name: str | Path) -> Config:
    """A config by file name, or ``package::path`` for one that an installed package carries. In its ``_base_`` it may
    name stock configs in the same way.

    Raises:
        MissingPackage: mmdet or mmseg is asked for and not installed.
        FileNotFoundError: the package has no such config; the message has the nearest names.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE.update({package: package for package in EXTRAS})
    path = stock_config(str(name)) if "::" in str(name) else name
    try:
        return Config.fromfile(path)
    except ModuleNotFoundError as error:  # of a `_base_`; MMEngine names the package in its message only
        package = re.match(r"(\w+) is not installed", str(error))
        if package is None or package[1] not in EXTRAS:
            raise
        raise _missing(package[1], str(name)) from error


def stock_config(name: str) -> Path:
    """The file of ``package::path``; the path may do without ``.py``.

    Raises:
        MissingPackage, FileNotFoundError: as :func:`read_config`.
    """
    package, _, path = name.partition("::")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise _missing(package, name)
    folder = Path(spec.origin).parent / ".mim" / "configs"
    file = folder / f"{path.removesuffix('.py')}.py"
    if not file.is_file():
        stems = {found.stem: found.relative_to(folder).as_posix() for found in sorted(folder.glob("[!_]*/*.py"))}
        near = [f"{package}::{stems[stem]}" for stem in get_close_matches(file.stem, stems, n=3)]
        raise FileNotFoundError(f"{package} has no config {name}; the nearest names are {near or sorted(stems)[:3]}")
    return file


def _missing(package: str, name: str) -> MissingPackage:
    known = "" if package in EXTRAS else f": known are {list(EXTRAS)}"
    return MissingPackage(f"{name} needs {not_installed(package)}{known}", name=package)


def not_installed(package: str) -> str:
    """The end of a message about a package that is needed: which extra brings it."""
    extra = {**EXTRAS, "timm": "det"}.get(package)
    return f"the package {package!r}, which is not installed" + (f": pip install 'densessl[{extra}]'" if extra else "")


def load_config(name: str) -> Config:
    """A config by file name, or ``package::path`` for one that an installed package carries.

    Raises:
        FileNotFoundError: naming the files beside the missing one.
        MissingPackage: the config, or its ``_base_``, is of a package that is not installed.
    """
    if "::" not in name and not Path(name).is_file():
        folder = Path(name).parent
        near = sorted(path.name for path in folder.glob("*.py")) if folder.is_dir() else []
        raise FileNotFoundError(f"no config at {name}; {folder} holds {near or 'none'}")
    return read_config(name)


def is_pretraining(cfg: Config) -> bool:
    """Whether a config is one of ours: it says what ``views`` of images it wants, or what ``view`` a detector."""
    return "views" in cfg or "view" in cfg
