"""MMDetection without compiled mmcv operators.

Importing this package appends a finder to ``sys.meta_path`` that answers one module name, ``mmcv._ext``, the compiled
extension that ``mmcv.ops`` loads its operators from. Because the finder is the last one asked, a compiled extension is
always found first and wins. Where there is none, the module is ``densessl/compat/extension.py``: nms, RoI pooling,
deformable convolution, focal loss and deformable attention from torchvision and PyTorch, on CPU and CUDA.

``import densessl`` is enough; a stock MMDetection config says ``custom_imports = dict(imports=["densessl.compat"])``.
The finder belongs to the process, so a spawned worker has it once it imports densessl: whatever it unpickles from
densessl, or a main script that imports densessl, sees to that.

Nothing is imported here but the standard library: neither mmcv nor torch.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from densessl.compat.distributions import check_distributions

__all__ = ["ExtensionFinder", "check_distributions", "install"]

EXTENSION = "mmcv._ext"


class ExtensionFinder(MetaPathFinder):
    """Finder of ``mmcv._ext`` and of nothing else."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Spec of ``extension.py`` under the name ``mmcv._ext``; None for any other name."""
        if fullname != EXTENSION:
            return None
        return spec_from_file_location(EXTENSION, Path(__file__).with_name("extension.py"))

    @classmethod
    def invalidate_caches(cls) -> None:
        """There are none. The class is the finder, so ``importlib.invalidate_caches()`` has no instance to call."""


def install() -> None:
    """Append the finder to ``sys.meta_path``; a second call changes nothing."""
    if ExtensionFinder not in sys.meta_path:
        sys.meta_path.append(ExtensionFinder)


install()
