"""Find and read configs by name: files, shipped configs, and the stock configs of mmdet and mmseg.

``pixpro_r18`` is a shipped config; ``mmseg::fcn/fcn_r50-d8_…`` is a config of an import package. MMEngine looks mmseg
up as the distribution ``mmsegmentation``, and installs that one if it is absent. This module looks for the import
package, under whatever distribution it was installed, and never installs anything.
"""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from traceback import extract_tb

from mmengine.config import Config

from densessl import extras, quiet  # noqa: F401  quiet: before a config imports MMDetection
from densessl.errors import DensesslError, FileMissing, MissingPackage, SettingError
from densessl.wording import nearest

# In a checkout, a link to the folder configs/ beside the package; in an installed wheel, a copy of its files.
SHIPPED = Path(__file__).parent / "shipped"
STOCK = ("mmdet", "mmseg")  # import packages that contain configs
SUFFIXES = (".py", ".json", ".yaml", ".yml")  # that MMEngine reads


def read_config(name: str | Path) -> Config:
    """Read a config by file name, or by ``package::path`` for a stock config of an installed package. Its ``_base_``
    may name stock configs in the same way. The modules in its ``custom_imports`` are imported.

    Raises:
        MissingPackage: the config, its ``_base_`` or its imports need a package that is not installed.
        FileMissing: the package has no such config; the message names the nearest ones.
        SettingError: the file cannot be read as a config.
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
        # MMEngine's message about the package of a `_base_`
        base = re.match(rf"({'|'.join(STOCK)}) is not installed", str(error))
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
    """Return the file of ``package::path``; the path may omit ``.py``.

    Raises:
        MissingPackage, FileMissing: as :func:`read_config`.
    """
    package, _, path = name.partition("::")
    if package not in STOCK:
        message = f"{name} is no stock config: the package {package!r} is none of {list(STOCK)}"
        raise MissingPackage(message, name=package)
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise extras.missing(package, name)
    folder = Path(spec.origin).parent / ".mim" / "configs"
    file = folder / f"{path.removesuffix('.py')}.py"
    if not file.is_file():
        stems = {path.stem: path.relative_to(folder).as_posix() for path in sorted(folder.glob("[!_]*/*.py"))}
        near = [f"{package}::{stems[stem]}" for stem in nearest(file.stem, stems)]
        raise FileMissing(f"{package} has no config {name}; the nearest names are {near or sorted(stems)[:3]}")
    return file


def load_config(name: str) -> Config:
    """Read a config by its name; see :func:`config_path`.

    Raises:
        FileMissing: there is no such config; the message names the nearest ones.
        MissingPackage, SettingError: as :func:`read_config`.
    """
    return read_config(config_path(name))


def config_path(name: str | Path) -> str:
    """Return the file of a config; the name of a stock config is returned unchanged.

    Args:
        name: a file, ``package::path`` of a stock config of mmdet or mmseg, or the name of a shipped config:
            ``pixpro_r18``, ``transfer/coco/mask-rcnn_r50_fpn_1x``, with or without ``configs/`` before it and ``.py``
            after it.

    Raises:
        FileMissing: there is no config of that name; the message names the nearest ones.
    """
    name = str(name)
    if not name.strip():
        raise FileMissing(f"config: found {name!r}, expected a config file, or the name of a shipped config")
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
    last = {each.rpartition("/")[2]: each for each in known}  # a name without its folder counts as near, too
    near = nearest(stem, known) or [last[each] for each in nearest(stem.rpartition("/")[2], last, cutoff=0)]
    raise FileMissing(
        f"no config {name!r}: no such file, and no shipped config of that name; did you mean {' or '.join(near)}?"
    )


def shipped_configs() -> dict[str, Path]:
    """The configs that densessl ships, by name, in alphabetical order: ``pixpro_r18``, ``small/densecl_r18`` …"""
    files = [Path(folder, name) for folder, _, names in os.walk(SHIPPED) for name in names if name.endswith(".py")]
    names = {file.relative_to(SHIPPED).with_suffix("").as_posix(): file for file in files}
    return {name: names[name] for name in sorted(names) if "_base_" not in name}


def is_pretraining(cfg: Config) -> bool:
    """Whether a config pretrains: it defines ``views`` of images, or the ``view`` of a whole detector."""
    return "views" in cfg or "view" in cfg
