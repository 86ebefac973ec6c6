"""Configs by name: files, those that densessl ships, and those that mmdet and mmseg carry.

``pixpro_r18`` is a shipped config, ``mmseg::fcn/fcn_r50-d8_…`` one of a package, by its import name. MMEngine looks
mmseg up as the distribution ``mmsegmentation``, and installs that where it is called otherwise. Here it is the import
package that counts, whoever installed it, and nothing is ever installed.
"""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from traceback import extract_tb

from mmengine.config import Config

from densessl import extras
from densessl.errors import DensesslError, FileMissing, MissingPackage, SettingError
from densessl.wording import nearest

# In a checkout a link to the folder of that name beside the package; in an installed wheel that folder's files.
SHIPPED = Path(__file__).parent / "shipped"
STOCK = ("mmdet", "mmseg")  # import packages that carry configs
SUFFIXES = (".py", ".json", ".yaml", ".yml")  # that MMEngine reads


def read_config(name: str | Path) -> Config:
    """A config by file name, or ``package::path`` for one that an installed package carries. In its ``_base_`` it may
    name stock configs in the same way. What its ``custom_imports`` name is imported.

    Raises:
        MissingPackage: it is a stock config, has one as ``_base_``, or imports something, of a package that is not
            installed.
        FileMissing: the package has no such config; the message has the nearest names.
    """
    from mmengine.config.utils import MODULE2PACKAGE  # private to MMEngine, and only read_config needs it

    MODULE2PACKAGE.update({package: package for package in STOCK})
    path = stock_config(str(name)) if "::" in str(name) else name
    if Path(path).suffix not in SUFFIXES:
        raise SettingError(f"{name} is no config: expected a Python file")
    try:
        cfg = Config.fromfile(path)
        for key in cfg:
            cfg[key]  # what a config imports by Python's own `import`, MMEngine imports when it is looked at
        return cfg
    except DensesslError:
        raise
    except ImportError as error:
        base = re.match(rf"({'|'.join(STOCK)}) is not installed", str(error))  # MMEngine, of the package of a `_base_`
        package = base[1] if base else extras.missing_package(error)
        if package is None:
            raise unreadable(name, error) from error
        raise extras.missing(package, str(name)) from error
    except Exception as error:  # a config is a program of the user's: anything may go wrong in it
        raise unreadable(name, error) from error


def unreadable(name: str | Path, error: Exception) -> SettingError:
    """The error that says why a config cannot be read, and on which line of it."""
    text = f"no file {error.filename}" if isinstance(error, FileNotFoundError) and error.filename else str(error)
    kind = "" if isinstance(error, FileNotFoundError) else f"{type(error).__name__}: "
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename.endswith(Path(name).name)]
    if isinstance(error, AttributeError) and Path(name).suffix != ".py":
        kind, text = "", "expected a dict of settings"
    if isinstance(error, SyntaxError):
        text, lines = str(error.msg), [error.lineno]
    where = f" (line {lines[-1]})" if lines else ""
    return SettingError(f"{name} cannot be read as a config: {kind}{text}{where}")


def stock_config(name: str) -> Path:
    """The file of ``package::path``; the path may do without ``.py``.

    Raises:
        MissingPackage, FileMissing: as :func:`read_config`.
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
        near = [f"{package}::{stems[stem]}" for stem in nearest(file.stem, stems)]
        raise FileMissing(f"{package} has no config {name}; the nearest names are {near or sorted(stems)[:3]}")
    return file


def load_config(name: str) -> Config:
    """A config by its name, see :func:`config_path`.

    Raises:
        FileMissing: there is none; the message has the nearest names.
        MissingPackage: as :func:`read_config`.
        SettingError: the file is no config that can be read.
    """
    return read_config(config_path(name))


def config_path(name: str | Path) -> str:
    """The file of a config, or the name of a stock one as it is.

    Args:
        name: a file; ``package::path`` of a config that mmdet or mmseg carries; or the name of a shipped config:
            ``pixpro_r18``, ``transfer/coco/mask-rcnn_r50_fpn_1x``, also with ``configs/`` before it or ``.py`` behind.

    Raises:
        FileMissing: there is none of that name; the message has the nearest names.
    """
    name = str(name)
    if "::" in name or Path(name).is_file():
        return name
    known = shipped_configs()
    stem = name.removeprefix("./").removeprefix("configs/").removesuffix(".py")
    if stem in known:
        return str(known[stem])
    if Path(name).is_dir():
        raise FileMissing(f"{name} is a folder, expected a config file, or the name of a shipped config")
    folder = Path(name).parent
    if name.endswith(".py") and folder.is_dir():
        beside = sorted(path.name for path in folder.glob("*.py"))
        if beside:
            near = nearest(Path(name).name, beside, cutoff=0)
            raise FileMissing(f"no config at {name}; near it {folder} has {', '.join(near)}")
    last = {each.rpartition("/")[2]: each for each in known}  # a name without its folder is near, too
    near = nearest(stem, known) or [last[each] for each in nearest(stem.rpartition("/")[2], last, cutoff=0)]
    raise FileMissing(
        f"no config {name!r}: no such file, and no shipped config of that name; did you mean {' or '.join(near)}?"
    )


def shipped_configs() -> dict[str, Path]:
    """The configs that densessl ships, by name, in the order of their names: ``pixpro_r18``, ``small/densecl_r18`` …"""
    files = [Path(folder, name) for folder, _, names in os.walk(SHIPPED) for name in names if name.endswith(".py")]
    names = {file.relative_to(SHIPPED).with_suffix("").as_posix(): file for file in files}
    return {name: names[name] for name in sorted(names) if "_base_" not in name}


def is_pretraining(cfg: Config) -> bool:
    """Whether a config is one of ours: it says what ``views`` of images it wants, or what ``view`` a detector."""
    return "views" in cfg or "view" in cfg
