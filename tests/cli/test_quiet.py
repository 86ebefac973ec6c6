"""What other libraries say while they are imported is not seen by users of any command or of the Python interface."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine import logging as mmengine_logging

from densessl import quiet

ROOT = Path(__file__).parents[2]
CODE = """
import sys
import densessl
from densessl.cli import main
densessl.pretrain, densessl.compare, densessl.load_detector
code = main(["train", "detreg_detr_r50", "--explain"])
import mmdet.datasets, mmdet.evaluation  # which speak of packages that they miss
sys.exit(code + main(["train", "mmdet::retinanet/retinanet_r50_fpn_1x_coco", "--data-root", "nowhere"]))
"""


@pytest.mark.det
def test_libraries_say_nothing_before_our_first_line(tmp_path):
    """In a process of its own: in this one they are imported already."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CODE]
    found = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert found.returncode == 2, found.stderr
    assert found.stdout.startswith("default_scope = 'densessl'")
    assert found.stderr.startswith("error: 4 of the 4 files")
    assert "OneDL" not in found.stdout + found.stderr


def test_other_messages_are_printed_as_before(capsys):
    assert quiet.NOISE.search("Could not import OneDL")
    mmengine_logging.print_log("Could not import OneDL. Skipping OneDL datasets.")
    mmengine_logging.print_log("something else", logger=None)
    assert capsys.readouterr().out == "something else\n"


@pytest.mark.det
def test_loading_annotations_prints_nothing(tmp_path, capsys):
    import mmdet  # noqa: F401
    from pycocotools import coco

    quiet.silence_coco()
    file = tmp_path / "a.json"
    file.write_text('{"images": [], "annotations": [], "categories": [], "info": {"year": 2026}}')
    loaded = coco.COCO(str(file))
    assert capsys.readouterr().out == ""
    loaded.info()
    assert capsys.readouterr().out == "year: 2026\n"
