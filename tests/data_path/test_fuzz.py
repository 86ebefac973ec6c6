"""Damaged images are refused, or come out as OpenCV decodes them; benchmarks/fuzz_images.py does thousands."""

import subprocess
import sys
from pathlib import Path

from densessl.data.demo import write_demo_photos

ROOT = Path(__file__).parents[2]


def test_no_damaged_image_comes_out_wrong(tmp_path):
    write_demo_photos(tmp_path / "photos")
    words = [str(tmp_path / "photos"), "--count", "400", "--pictures", "6"]
    command = [sys.executable, str(ROOT / "benchmarks/fuzz_images.py"), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "400 files" in done.stdout and "0 faults" in done.stdout
