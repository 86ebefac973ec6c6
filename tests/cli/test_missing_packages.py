"""Without a package of an extra, every command that needs it says in a line how to install it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from densessl.extras import EXTRAS, how_to_install

ROOT = Path(__file__).parents[2]
RETINANET = "mmdet::retinanet/retinanet_r50_fpn_1x_coco"
FCN = "train transfer/voc/fcn_r50-d8_512_20k --data-root nowhere"
COMMANDS = {
    "mmcv": f"train {RETINANET} --data-root nowhere",
    "mmdet": f"export ours.pth out.pth --into {RETINANET}",
    "pycocotools": f"train {RETINANET} --data-root nowhere",
    "timm": "train tiny.py --data-root photos --set model.online.backbone.type=timm.test_resnet",
    "onnx": "export ours.pth out.onnx --to onnx",
    "onnxscript": "export ours.pth out.onnx --to onnx",
    "numba": "regions build photos out",
    "selectivesearch": "regions build photos out --generator selectivesearch",
    "skimage": "look matching ours.pth out.png --size 32 48",
    "mmseg": FCN,
    "ftfy": FCN,
    "regex": FCN,
}
# A process that has not imported a package forks for each of them, and prints "PACKAGE CODE"; the errors go
# to a file. Commands that need mmdet as well come last, so that it is imported once for all of them.
CODE = """
import json, os, sys
from importlib.machinery import PathFinder
from densessl.cli import main
class Blocker(PathFinder):
    missing = None
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == cls.missing else super().find_spec(name, path, target)
sys.meta_path[:] = [Blocker if each is PathFinder else each for each in sys.meta_path]
for package, command in json.load(sys.stdin).items():
    if package == "mmseg":
        import mmdet.apis  # which these commands need, and would import one after the other
    assert package not in sys.modules, package
    child = os.fork()
    if child == 0:
        Blocker.missing, code = package, 1
        sys.stderr = open(f"{package}.err", "w")
        try:
            code = main(command.split())
        except SystemExit as error:
            code = error.code
        finally:
            sys.stderr.flush()
            os._exit(code)
    print(package, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_every_package_of_an_extra_has_a_command():
    packages = {package for packages in EXTRAS.values() for package in packages}
    # scipy is needed at the end of densessl segment; without cityscapesscripts, configs use COCO's metrics. Without
    # pillow_heif, HEIC files count as bad images; without pyarrow, tests/data_path/test_sources.py has the message;
    # without imagehash, densessl data check leaves near duplicates out (tests/datacheck).
    assert packages - set(COMMANDS) == {"scipy", "cityscapesscripts", "pillow_heif", "pyarrow", "imagehash"}


@pytest.mark.det
def test_a_missing_package_is_told_in_a_line(fault_room):
    command = [sys.executable, "-W", "ignore", "-c", CODE]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    commands = json.dumps(COMMANDS)
    done = subprocess.run(
        command, input=commands, env=environment, cwd=fault_room, capture_output=True, text=True, timeout=300
    )
    codes = dict(line.split() for line in done.stdout.splitlines() if line.split()[:1] and line.split()[0] in COMMANDS)
    assert codes == dict.fromkeys(COMMANDS, "2"), done.stdout + done.stderr
    for package in COMMANDS:
        said = (fault_room / f"{package}.err").read_text()
        extras = [how_to_install(extra) for extra, packages in EXTRAS.items() if package in packages]
        assert f"needs the package {package!r}, which is not installed: {extras[0]}" in said and "Traceback" not in said
