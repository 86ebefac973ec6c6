"""A machine that has the wheel and no checkout: the command, the configs, a run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = ["views.*.size=16", "model.online.backbone.width=8", "model.objectives.0.hidden=8", "model.objectives.0.dim=8"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the wheel is installed into, made from a copy of what a checkout has."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "configs", source / "configs", ignore=ignore)
    shutil.copytree(ROOT / "densessl", source / "densessl", symlinks=True, ignore=ignore)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def run(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "densessl", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def test_it_has_the_configs_and_the_command(installed):
    configs = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.py")}
    shipped = installed / "densessl/shipped"
    assert not shipped.is_symlink() and configs == {path.relative_to(shipped) for path in shipped.rglob("*.py")}
    (points,) = installed.glob("densessl-*.dist-info/entry_points.txt")
    assert "densessl = densessl.cli:main" in points.read_text()


def test_it_trains_by_name_in_an_empty_folder(installed, tmp_path):
    done = run(installed, tmp_path, "train", "pixpro_r18", "--demo", "--epochs", "1", "--set", *TINY)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "work_dirs/pixpro_r18_demo/backbone.pth").is_file()


def test_compare_needs_no_checkout(installed, tmp_path):
    done = run(installed, tmp_path, "compare", "--help")
    assert done.returncode == 0 and "usage: densessl compare" in done.stdout
