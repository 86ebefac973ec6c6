"""Packages that only an extra of ``setup.cfg`` brings: which extra has which, and what to say where one is missing.

Nothing is imported here but the standard library, so that it can be said in any installation.
"""

from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

from densessl.errors import MissingPackage
from densessl.version import __version__

# For each extra, the packages it brings by the names they are imported under.
EXTRAS = {
    "det": ("mmcv", "mmdet", "pycocotools", "timm"),
    "seg": ("mmcv", "mmseg", "ftfy", "regex"),
    "cityscapes": ("cityscapesscripts",),
    "onnx": ("onnx", "onnxscript"),
    "regions": ("numba", "selectivesearch"),
    "segment": ("scipy",),
    "look": ("skimage",),
}


def how_to_install(extra: str) -> str:
    """The command that installs an extra. densessl is on no package index, so there is one for a checkout and one for a
    wheel."""
    wheel = f"densessl-{__version__}-py3-none-any.whl"
    return f"pip install -e '.[{extra}]' in a checkout, or pip install '{wheel}[{extra}]' with the wheel at hand"


def missing(package: str, what: str) -> MissingPackage:
    """The error that says which package is missing, and how to install it where an extra has it.

    Args:
        package: its import name.
        what: what needs it: the beginning of the message.
    """
    extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
    way_out = f": {how_to_install(extra)}" if extra else "; no extra of densessl has it"
    return MissingPackage(f"{what} needs the package {package!r}, which is not installed{way_out}", name=package)


def import_extra(module: str, what: str) -> ModuleType:
    """A module of a package that an extra brings.

    Args:
        what: what needs it, for the message.

    Raises:
        MissingPackage: the package is not installed, or another one that it needs and an extra brings.
        ImportError: the package is there, and broken.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = missing_package(error)
        if package is None:
            raise
        raise missing(package, what) from error


def missing_package(error: BaseException) -> str | None:
    """The package, of those that extras bring, for want of which an import failed; None if that is not why."""
    ours = {package for packages in EXTRAS.values() for package in packages}
    for cause in _chain(error):
        package = (getattr(cause, "name", None) or "").partition(".")[0]
        if isinstance(cause, ModuleNotFoundError) and package in ours:
            return package
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that led to it, the last raised first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
