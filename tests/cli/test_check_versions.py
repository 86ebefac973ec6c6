"""``tools/check_versions.py``: what it installs is what is declared, and a failure is a row that says which step."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from densessl.extras import how_to_install

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("check_versions", ROOT / "tools/check_versions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_environments_are_those_of_the_documentation(script):
    """Each row's name is one that can be made; the commands for the original line are those that were tried."""
    page = (ROOT / "docs/install.md").read_text()
    rows = re.findall(r"^\| ([\w.-]+) \| 3\.1\d", page, re.M)
    assert rows and set(script.DEFAULT) <= set(rows) <= set(script.ENVIRONMENTS)
    words = [word for call in script.ENVIRONMENTS["original"] for word in call if word not in script.PINS]
    commands = [line.split()[2:] for line in page.splitlines() if line.startswith("pip install ")]
    first = next(i for i, command in enumerate(commands) if "mmcv-lite==2.1.0" in command)
    assert commands[first] + commands[first + 1] == words


def test_it_asks_for_the_words_that_are_said(script):
    assert how_to_install("det").startswith(script.HINT.partition(": ")[2])


def test_a_step_that_fails_is_in_the_row_and_its_reason_on_the_error_output(script, capsys):
    assert script.main(["minimal", "--python", "false"]) == 1
    out, err = capsys.readouterr()
    assert "| minimal | – | – | – | **fails** | – | – | – | – |\n" in out
    assert "minimal, install: exit code 1, expected 0" in err


def test_unknown_names_are_refused(script, capsys):
    assert script.main(["minimal", "orignal"]) == 2
    assert "unknown: orignal; known: minimal, detectors, original" in capsys.readouterr().err


def test_what_a_command_must_say_is_asked_for(script):
    command = [sys.executable, "-c", "import os, sys; print(os.environ.get('PYTHONPATH'), 'said'); sys.exit(3)"]
    assert script.run(command, 3, "None said").code == 3
    for wanted, says in ((0, ""), (3, "unsaid")):
        with pytest.raises(script.Failed, match=f"exit code 3, expected {wanted}"):
            script.run(command, wanted, says)
