"""What every wrong command line is promised: an exit code, a few lines that name what is wrong, and nothing touched."""

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from densessl.cli import main
from densessl.data.sources import EXTENSIONS

SHORT = {
    "TINY": "train tiny.py --data-root photos",
    "RETINANET": "mmdet::retinanet/retinanet_r50_fpn_1x_coco",
    "COMPARE": "compare --out out --config mmdet::retinanet/retinanet_r50_fpn_1x_coco --init a=none",
    "SEGMENT": "segment segments.py segmentor.pth --device cpu --images photos --labels labels",
}
MOST_LINES = 14  # the longest is the layout of a data set that is not there
_opened: list[str] | None = None


def rows(table: str) -> list:
    """A test case for each line ``COMMAND LINE | REGULAR EXPRESSION`` of a table; lines with ``#`` are comments."""
    cases = []
    for line in filter(None, map(str.strip, table.splitlines())):
        if not line.startswith("#"):
            words, _, said = line.partition(" | ")
            marks = [pytest.mark.det] if re.search(r"RETINANET|COMPARE|mmdet|detreg|--family", words) else []
            cases.append(pytest.param(words, said.strip(), id=words, marks=marks))
    return cases


def expect(room: Path, words: str, said: str, capsys, reads: bool = False) -> None:
    """Run a wrong command line in the room, and check what it is promised.

    Args:
        said: what standard error matches.
        reads: whether images may be read first.
    """
    for short, long in SHORT.items():
        words = words.replace(short, long)
    before = files(room)
    with images_opened() as opened:
        found = exit_code(shlex.split(words))
    text = capsys.readouterr().err
    assert found == 2, text
    assert re.search(said, text), text
    assert text.startswith("error: ") and "Traceback" not in text
    assert len(text.splitlines()) <= MOST_LINES, text
    assert files(room) == before, sorted(files(room) ^ before)[:5]
    assert reads or not opened, opened[:3]


def exit_code(argv: list[str]) -> int:
    try:
        return main(argv)
    except SystemExit as stopped:  # of argparse
        return stopped.code


def files(room: Path) -> set[str]:
    found = {path.relative_to(room) for path in room.rglob("*")}
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


@contextmanager
def images_opened() -> Iterator[list[str]]:
    """The image files that are opened inside the block."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


def _note(event: str, arguments: tuple) -> None:
    if event == "open" and _opened is not None and str(arguments[0]).lower().endswith(EXTENSIONS):
        _opened.append(str(arguments[0]))


sys.addaudithook(_note)
