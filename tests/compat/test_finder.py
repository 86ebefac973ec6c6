"""How the stand-in for mmcv's compiled extension gets in, and out of the way: each case in a fresh interpreter."""

import importlib
import os
import subprocess
import sys
import textwrap
from importlib.metadata import distributions
from pathlib import Path

import pytest

from densessl.compat import ExtensionFinder, check_distributions
from densessl.compat.distributions import OWNERS

ROOT = Path(__file__).parents[2]


def run(code: str, *first_on_path: Path) -> subprocess.CompletedProcess:
    """Run Python code in a new process, with folders ahead of everything else on its path."""
    path = os.pathsep.join(map(str, [*first_on_path, ROOT]))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=first_on_path[-1])


def succeed(code: str, *first_on_path: Path) -> None:
    """Run code that asserts; show its error if it fails."""
    result = run(code, *first_on_path)
    assert result.returncode == 0, result.stderr


def fake_mmcv(folder: Path, compiled: bool = False) -> Path:
    """A folder that holds a package ``mmcv`` with nothing in it, or with an extension that is known by its mark."""
    package = folder / "fake" / "mmcv"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    if compiled:
        (package / "_ext.py").write_text("mark = 'compiled'")
    return package.parent


def fake_distributions(folder: Path, **versions: str) -> Path:
    """A folder with the metadata of installed distributions (underscores for hyphens)."""
    site = folder / "site"
    for name, version in versions.items():
        metadata = site / f"{name}-{version}.dist-info"
        metadata.mkdir(parents=True)
        header = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        (metadata / "METADATA").write_text(header)
    return site


def test_import_is_light_and_idempotent(tmp_path: Path) -> None:
    """The finder is appended once, after every finder that was there, and brings neither torch nor mmcv."""
    succeed(
        """
        import importlib, sys
        before = list(sys.meta_path)
        import densessl, densessl.compat
        densessl.compat.install()
        assert sys.meta_path[: len(before)] == before
        assert sys.meta_path[len(before) :] == [densessl.compat.ExtensionFinder]
        assert not {"torch", "torchvision", "mmcv", "mmengine", "numpy"} & set(sys.modules)
        """,
        tmp_path,
    )


def test_answers_one_name() -> None:
    for name in ("mmcv", "mmcv.ops", "mmcv._extension", "_ext", "mmdet._ext"):
        assert ExtensionFinder.find_spec(name) is None
    assert ExtensionFinder.find_spec("mmcv._ext").name == "mmcv._ext"


def test_compiled_extension_wins(tmp_path: Path) -> None:
    code = "import densessl, mmcv._ext; assert mmcv._ext.mark == 'compiled'"
    succeed(code, fake_mmcv(tmp_path, compiled=True), tmp_path)


def test_stand_in_is_a_module_whose_missing_operators_raise_when_called(tmp_path: Path) -> None:
    succeed(
        """
        import densessl, importlib, mmcv, torch
        extension = importlib.import_module("mmcv._ext")
        assert extension is mmcv._ext
        assert extension.__spec__.name == extension.__name__ == "mmcv._ext"
        assert extension.__spec__.origin == extension.__file__
        assert extension.get_compiler_version() and extension.get_compiling_cuda_version()
        assert not hasattr(extension, "__path__")
        assert callable(extension.carafe_forward)
        try:
            extension.carafe_forward(1, scale=2)
        except NotImplementedError as error:
            for part in ("'carafe_forward'", f"compiled for torch {torch.__version__}", "MMCV_WITH_OPS=1"):
                assert part in str(error), error
        else:
            raise AssertionError("carafe_forward ran")
        """,
        fake_mmcv(tmp_path),
        tmp_path,
    )


@pytest.mark.det
def test_stock_config_and_spawned_worker(tmp_path: Path) -> None:
    """``custom_imports`` of a config installs it; a spawned worker has it once it unpickles something of densessl."""
    (tmp_path / "config.py").write_text("custom_imports = dict(imports=['densessl.compat'])")
    (tmp_path / "main.py").write_text(
        textwrap.dedent(
            """
            import multiprocessing, sys

            class Job:
                def __reduce__(self):  # what any pickled object of densessl does first
                    return __import__, ("densessl",)

            def work(job):
                from mmcv.ops import nms
                import torch
                print(len(nms(torch.tensor([[0., 0, 9, 9]] * 2), torch.tensor([.9, .8]), .5)[1]))

            if __name__ == "__main__":
                from mmengine.config import Config
                Config.fromfile("config.py")
                import mmcv.ops
                worker = multiprocessing.get_context("spawn").Process(target=work, args=(Job(),))
                worker.start()
                worker.join()
                sys.exit(worker.exitcode)
            """
        )
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "main.py"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "1\n"), result.stderr


@pytest.mark.parametrize(
    "owners, package",
    [
        ({"mmcv": "2.1.0", "onedl_mmcv": "2.3.6"}, "mmcv"),
        ({"mmcv_lite": "2.1.0", "onedl_mmcv": "2.3.6"}, "mmcv"),
        ({"mmdet": "3.3.0", "onedl_mmdetection": "3.5.1"}, "mmdet"),
        ({"mmengine": "0.10.7", "onedl_mmengine": "0.10.12"}, "mmengine"),
    ],
)
def test_two_owners_of_one_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owners: dict[str, str], package: str
) -> None:
    """The error names both owners with their versions, and the commands that mend it."""
    monkeypatch.setattr(sys, "path", [str(fake_distributions(tmp_path, **owners))])
    names = [name.replace("_", "-") for name in owners]
    listed = " and ".join(f"{name} {version}" for name, version in zip(names, owners.values()))
    mend = f"pip uninstall -y {' '.join(names)}\n  pip install --no-deps {names[1]}=={[*owners.values()][1]}"
    with pytest.raises(ImportError) as error:
        check_distributions()
    for part in (f"'{package}'", listed, mend):
        assert part in str(error.value)


def test_owners_are_checked_when_mmcv_asks_and_not_before(tmp_path: Path) -> None:
    paths = (fake_distributions(tmp_path, mmcv="2.1.0", onedl_mmcv="2.3.6"), fake_mmcv(tmp_path), tmp_path)
    result = run("import densessl, mmcv; print('imported'); import mmcv._ext; print('loaded')", *paths)
    assert result.stdout == "imported\n"
    names = {"mmcv": "2.1.0", "onedl-mmcv": "2.3.6"}
    owners = {*names, *({each.name for each in distributions()} & set(OWNERS["mmcv"]))}  # the real one is there too
    told = f"ImportError: The import package 'mmcv' is owned by {len(owners)} installed distributions: "
    assert told in result.stderr
    assert all(f"{name} {version}" in result.stderr for name, version in names.items())


def test_one_owner_each_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = fake_distributions(tmp_path, onedl_mmcv="2.3.6", onedl_mmdetection="3.5.1", onedl_mmengine="0.10.12")
    monkeypatch.setattr(sys, "path", [str(site)])
    check_distributions()


def test_caches_can_be_invalidated():
    importlib.invalidate_caches()  # as torch and pip do; it asks the finder, which is a class
