"""Configs that mmdet and mmseg carry, by the name of the import package: ``mmseg::fcn/fcn_r50-d8_…``.

MMEngine looks mmseg up as the distribution ``mmsegmentation``, and installs that where it is called otherwise. Here it
is the import package that counts, whoever installed it, and nothing is ever installed.
"""

import re
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config

from densessl import extras
from densessl.errors import MissingPackage

STOCK = ("mmdet", "mmseg")  # import packages that carry configs


def read_config(name: str | Path) -> Config:
    """A config by file name, or ``package::path`` for one that an installed package carries. In its ``_base_`` it may
    name stock configs in the same way. What its ``custom_imports`` name is imported.

    Raises:
        MissingPackage: it is a stock config, has one as ``_base_``, or imports something, of a package that is not
            installed.
        FileNotFoundError: the package has no such config; the message has the nearest names.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE.update({package: package for package in STOCK})
    path = stock_config(str(name)) if "::" in str(name) else name
    try:
        return Config.fromfile(path)
    except ImportError as error:
        base = re.match(rf"({'|'.join(STOCK)}) is not installed", str(error))  # MMEngine, of the package of a `_base_`
        package = base[1] if base else extras.missing_package(error)
        if package is None:
            raise
        raise extras.missing(package, str(name)) from error


def stock_config(name: str) -> Path:
    """The file of ``package::path``; the path may do without ``.py``.

    Raises:
        MissingPackage, FileNotFoundError: as :func:`read_config`.
    """
    package, _, path = name.partition("::")
    if package not in STOCK:
        told = f"{name} is no stock config: the package {package!r} is none of {list(STOCK)}"
        raise MissingPackage(told, name=package)
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise extras.missing(package, name)
    folder = Path(spec.origin).parent / ".mim" / "configs"
    file = folder / f"{path.removesuffix('.py')}.py"
    if not file.is_file():
        stems = {found.stem: found.relative_to(folder).as_posix() for found in sorted(folder.glob("[!_]*/*.py"))}
        near = [f"{package}::{stems[stem]}" for stem in get_close_matches(file.stem, stems, n=3)]
        raise FileNotFoundError(f"{package} has no config {name}; the nearest names are {near or sorted(stems)[:3]}")
    return file


def load_config(name: str) -> Config:
    """A config by file name, or ``package::path`` for one that an installed package carries.

    Raises:
        FileNotFoundError: naming the files beside the missing one.
        MissingPackage: as :func:`read_config`.
    """
    if "::" not in name and not Path(name).is_file():
        folder = Path(name).parent
        near = sorted(path.name for path in folder.glob("*.py")) if folder.is_dir() else []
        raise FileNotFoundError(f"no config at {name}; {folder} holds {near or 'none'}")
    return read_config(name)


def is_pretraining(cfg: Config) -> bool:
    """Whether a config is one of ours: it says what ``views`` of images it wants, or what ``view`` a detector."""
    return "views" in cfg or "view" in cfg
