"""Install densessl into fresh virtual environments, as docs/install.md says, and check in each that it works.

    python tools/check_versions.py                       # minimal and original
    python tools/check_versions.py torch-2.6 torch-2.14 --python python3.12

In each environment, it imports the library, pretrains on the demo's pictures and on a folder of photos, and loads the
result into MMDetection's RetinaNet; without MMDetection, a one-line error must say what to install. It prints one row
of a table for each environment (docs/install.md has such a table).

Environments are created one at a time in a temporary folder, and removed afterwards; each takes up to 8 GB and some
minutes. This script uses only the standard library. The exit code is 0 if all work, 1 if one does not, and 2 if a name
is unknown or the disk is too full.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PINS = ("-c", "constraints.txt")
# Arguments of each call of `pip install`, which runs in the checkout.
ENVIRONMENTS = {
    "minimal": [[*PINS, "-e", "."]],
    "detectors": [[*PINS, "-e", ".[det]"]],
    "original": [
        [*PINS, "torch", "torchvision", "mmengine==0.10.7", "mmcv-lite==2.1.0", "mmdet==3.3.0"],
        [*PINS, "safetensors", "simplejpeg", "tensorboard"],
        ["--no-deps", "-e", "."],
    ],
    "wheel": [[*PINS, "WHEEL"]],
    "torch-2.6": [["torch==2.6.0", "torchvision==0.21.0", "-e", ".[det]"]],
    "torch-2.14": [["torch==2.14.1", "torchvision==0.29.1", "-e", ".[det]"]],
}
DEFAULT = ("minimal", "original")
COLUMNS = ("environment", "python", "packages", "size", "install", "import", "demo", "own photos", "into RetinaNet")
SHOWN = ("torch", "torchvision", "mmengine", "mmcv", "mmdet", "numpy", "cv2")
NEEDED = 10 * 2**30  # bytes of disk
TAIL = 12  # lines of output that a failure shows
HINT = "needs the package 'mmdet', which is not installed: pip install -e '.[det]'"

PACKAGES = f"""
import importlib, json
import densessl
from densessl.engine.runner import DenseRunner
found = {{}}
for name in {SHOWN}:
    try:
        found[name] = importlib.import_module(name).__version__.partition("+")[0]
    except ModuleNotFoundError:
        pass
print(json.dumps(found))
"""
PHOTOS = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
rng = np.random.default_rng(0)
for i in range(12):
    pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    folder = Path(sys.argv[1], "abc"[i % 3])
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((240, 180)).save(folder / f"{i}.{('jpg', 'png')[i % 2]}")
"""


class Failed(Exception):
    """A command did not end as expected. The message has the end of its output."""


class Done(NamedTuple):
    """The exit code, output and duration of a command."""

    code: int
    text: str  # stdout and stderr
    seconds: float


def run(command: Sequence[str | Path], wanted: int = 0, says: str = "", cwd: Path = ROOT) -> Done:
    """Run a command outside the reach of the caller's own packages.

    Args:
        wanted: expected exit code.
        says: text that its output must contain.

    Raises:
        Failed: the exit code or the output differs.
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    began = time.monotonic()
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if result.returncode != wanted or says not in result.stdout:
        lines = "\n".join(result.stdout.splitlines()[-TAIL:])
        expected = f"{wanted}{f' and {says!r}' if says else ''}"
        raise Failed(f"exit code {result.returncode}, expected {expected}; its end:\n{lines}")
    return Done(result.returncode, result.stdout, time.monotonic() - began)


def install(python: Path, calls: Sequence[Sequence[str]], folder: Path) -> float:
    """Run ``pip install`` with each list of arguments. Returns the seconds that it took."""
    began = time.monotonic()
    for arguments in calls:
        words = [str(build_wheel(python, folder)) if word == "WHEEL" else word for word in arguments]
        run([python, "-m", "pip", "install", "-q", *words])
    return time.monotonic() - began


def build_wheel(python: Path, folder: Path) -> Path:
    """Build a wheel from a copy of this checkout, so that files of earlier builds are not in it."""
    copy = folder / "checkout"
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "work_dirs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=unwanted)
    run([python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, copy])
    return next(folder.glob("densessl-*.whl"))


def try_out(python: Path, folder: Path, say: Callable[[str, str], None]) -> None:
    """Check each step in an environment, and report its result through ``say(step, result)``.

    Raises:
        Failed: a step failed; later ones are not tried.
    """
    train, config = [python, ROOT / "tools/train.py"], ROOT / "configs/pixpro_r18.py"
    found = json.loads(run([python, "-c", PACKAGES], cwd=folder).text.splitlines()[-1])
    say("import", "ok")
    say("packages", ", ".join(f"{name} {version}" for name, version in found.items()))

    demo = run([*train, config, "--demo", "--work-dir", folder / "demo"], says="backbone exported", cwd=folder)
    say("demo", f"{demo.seconds:.0f} s")

    run([python, "-c", PHOTOS, folder / "photos"], cwd=folder)
    options = ["train_cfg.max_epochs=1", "train_dataloader.batch_size=6", "train_dataloader.num_workers=2"]
    own = run(
        [*train, config, "--data-root", folder / "photos", "--work-dir", folder / "own", "--cfg-options", *options],
        says="backbone exported",
        cwd=folder,
    )
    say("own photos", f"{own.seconds:.0f} s")

    stock = "mmdet::retinanet/retinanet_r18_fpn_1x_coco.py"
    export = [python, ROOT / "tools/export.py", folder / "demo/epoch_2.pth", folder / "out.pth", "--into", stock]
    if "mmdet" in found:
        run(export, says="equal bit for bit", cwd=folder)
        say("into RetinaNet", "equal bit for bit")
    else:
        run(export, 2, HINT, folder)
        run([*train, ROOT / "configs/detreg_detr_r50.py", "--demo"], 2, HINT, folder)
        say("into RetinaNet", "says what to install")


def check(name: str, base: str) -> dict[str, str]:
    """Create an environment, check it and remove it. Returns its row of the table."""
    row = dict.fromkeys(COLUMNS, "–") | {"environment": name}
    folder = Path(tempfile.mkdtemp(prefix="densessl_versions_"))
    step = "install"
    try:
        run([base, "-m", "venv", folder / "venv"])
        python = folder / "venv/bin/python"
        row["python"] = run([python, "-c", "import platform; print(platform.python_version())"]).text.strip()
        row["install"] = f"{install(python, ENVIRONMENTS[name], folder):.0f} s"
        used = sum(file.lstat().st_size for file in (folder / "venv").rglob("*") if not file.is_dir())
        row["size"] = f"{used / 1e9:.1f} GB"
        try_out(python, folder, row.__setitem__)
    except Failed as failure:
        step = next(column for column in COLUMNS[COLUMNS.index("install") :] if row[column] == "–")
        row[step] = "**fails**"
        print(f"{name}, {step}: {failure}", file=sys.stderr)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return row


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(ENVIRONMENTS)}; by default {' and '.join(DEFAULT)}")
    parser.add_argument(
        "--python", default=sys.executable, help="Python of the environments; by default the one that runs this"
    )
    args = parser.parse_args(argv)
    unknown = [name for name in args.names if name not in ENVIRONMENTS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(ENVIRONMENTS)}", file=sys.stderr)
        return 2
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < NEEDED:
        print(f"{tempfile.gettempdir()} has {free / 1e9:.0f} GB left, {NEEDED / 1e9:.0f} are needed", file=sys.stderr)
        return 2
    print(line(COLUMNS), line(["---"] * len(COLUMNS)), sep="\n", flush=True)
    rows = []
    for name in args.names or DEFAULT:
        rows.append(check(name, args.python))
        print(line(rows[-1].values()), flush=True)
    return int(any("**fails**" in row.values() for row in rows))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the environment is removed
    sys.exit(main())
