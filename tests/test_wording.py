"""What messages share: the nearest names, and how an unknown one is answered."""

import re
from pathlib import Path

import pytest

import densessl
from densessl.errors import SettingError
from densessl.wording import choose, count, duration, nearest, suggestion

NAMES = ("ema", "stop_gradient", "frozen")


def test_the_nearest_names_come_best_first():
    assert nearest("queu", ["queue", "queues", "key"]) == ["queue", "queues"]
    assert nearest("queu", ["queue", "queues", "key"], count=1) == ["queue"]
    assert nearest("xyz", NAMES) == []
    assert len(nearest("xyz", NAMES, count=1, cutoff=0.0)) == 1
    assert nearest(3, ["3"]) == ["3"]


def test_without_a_near_name_all_are_listed():
    assert suggestion("emaa", NAMES) == "did you mean ema?"
    assert suggestion("xyz", iter(NAMES)) == "known: ema, frozen, stop_gradient"


def test_an_unknown_name_is_a_setting_error_that_names_the_key():
    assert choose("target.kind", "ema", NAMES) == "ema"
    with pytest.raises(SettingError, match=r"^target\.kind 'emaa' is unknown; did you mean ema\?$"):
        choose("target.kind", "emaa", NAMES)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_duration_that_is_not_known_is_dashes(seconds):
    assert duration(seconds) == "--"
    assert duration(93784.4) == "1 day, 2:03:04"


def test_one_of_a_thing_is_singular():
    assert [count(number, "step") for number in (0, 1, 2, 10_000, 1.0, 1.5)] == [
        "0 steps",
        "1 step",
        "2 steps",
        "10,000 steps",
        "1 step",
        "1.5 steps",
    ]
    assert [count(number, "batch", "batches") for number in (1, 3)] == ["1 batch", "3 batches"]


# The number of an f-string and a plural after it; "7 of 9 images" and sizes such as "3x4 cells" are others.
PLURAL = re.compile(r"(?<!x)(?<!of )\{[^{}]*\} (images|steps|epochs|iterations|boxes|tensors|processes|cells|runs)\b")
WRITERS = ("engine", "cli", "comparison")  # write most log lines


def test_no_log_line_can_say_1_steps():
    root = Path(densessl.__file__).parent
    files = [
        root / "sizes.py",
        root / "horizon.py",
        *(path for name in WRITERS for path in (root / name).rglob("*.py")),
    ]
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if PLURAL.search(line)
    ]
    assert not found, found
