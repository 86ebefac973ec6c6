"""Packages that only an extra of ``setup.cfg`` installs, and the error message if one is missing.

Of densessl it imports only modules that need nothing but the standard library, so it works in any installation.
"""

from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

from densessl.errors import MissingPackage
from densessl.version import __version__

# The packages of each extra, by import name.
EXTRAS = {
    "det": ("mmcv", "mmdet", "pycocotools", "timm"),
    "seg": ("mmcv", "mmseg", "ftfy", "regex"),
    "cityscapes": ("cityscapesscripts",),
    "onnx": ("onnx", "onnxscript"),
    "regions": ("numba", "selectivesearch"),
    "segment": ("scipy",),
    "look": ("skimage",),
    "heif": ("pillow_heif",),
    "parquet": ("pyarrow",),
    "check": ("imagehash",),
}


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra. densessl is on no package index, so the commands are for a checkout
    and for a wheel."""
    wheel = f"densessl-{__version__}-py3-none-any.whl"
    return f"pip install -e '.[{extra}]' in a checkout, or pip install '{wheel}[{extra}]' with the wheel at hand"


def missing(package: str, what: str) -> MissingPackage:
    """Return the error that names a missing package, and how to install it if an extra has it.

    Args:
        package: import name of the package.
        what: what needs the package; begins the message.
    """
    extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
    remedy = f": {how_to_install(extra)}" if extra else "; no extra of densessl has it"
    return MissingPackage(f"{what} needs the package {package!r}, which is not installed{remedy}", name=package)


def import_extra(module: str, what: str) -> ModuleType:
    """Import a module of a package that an extra installs.

    Args:
        what: what needs the module; begins the message.

    Raises:
        MissingPackage: the package, or a package of an extra that it needs, is not installed.
        ImportError: the package is installed but broken.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = missing_package(error)
        if package is None:
            raise
        raise missing(package, what) from error


def missing_package(error: BaseException) -> str | None:
    """Return the package of an extra whose absence made an import fail; None if the import failed for another
    reason."""
    ours = {package for packages in EXTRAS.values() for package in packages}
    for cause in _chain(error):
        package = (getattr(cause, "name", None) or "").partition(".")[0]
        if isinstance(cause, ModuleNotFoundError) and package in ours:
            return package
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and its causes, the last raised first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
