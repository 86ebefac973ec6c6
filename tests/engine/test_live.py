"""The live line in real MMEngine runs; the terminal is a real pseudo terminal, replayed."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

from densessl.engine.stepping import steps
from tests.engine.test_progress import Model, runner


class Terminal:
    """As much of a terminal as rich uses: text, CR, LF, cursor up, erase line; colours and the like are ignored."""

    def __init__(self, output: str):
        self.rows, self.row, self.column = [""], 0, 0
        for control, text in re.findall(r"(\x1b\[[?\d;]*[A-Za-z]|\r|\n)|([^\x1b\r\n]+)", output):
            if text:
                line = self.rows[self.row].ljust(self.column)
                self.rows[self.row] = line[: self.column] + text + line[self.column + len(text) :]
                self.column += len(text)
            elif control == "\r":
                self.column = 0
            elif control == "\n":
                self.row += 1
                self.rows.extend([""] * (self.row + 1 - len(self.rows)))
            elif control.endswith("A"):
                self.row -= int(control[2:-1] or 1)
            elif control == "\x1b[2K":
                self.rows[self.row] = ""


class Talking(Model):
    """Logs, warns and prints in the middle of training."""

    def forward(self, inputs, data_samples=None, mode="tensor"):
        time.sleep(0.15)
        MMLogger.get_current_instance().info("word " * 60 + "end of the long line")
        print("printed")
        return super().forward(inputs, data_samples, mode)


def in_terminal(work_dir: Path) -> None:
    """What the child process of the terminal tests does: a whole run, one that Ctrl-C ends, and one that is broken
    off after its first step."""
    runner(work_dir / "whole", model=Talking(), epochs=1).train()
    print("WHOLE RUN DONE")
    interrupted = runner(work_dir / "interrupted", model=Talking(fail_at=6))
    streams = [handler.stream for handler in interrupted.logger.handlers]
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    assert [handler.stream for handler in interrupted.logger.handlers] == streams
    assert sys.stdout is sys.__stdout__
    interrupted.logger.info("INTERRUPTED RUN DONE", extra={"shown_live": True})
    print("NEXT RUN")
    broken_off = runner(work_dir / "broken_off", model=Model())
    streams = [handler.stream for handler in broken_off.logger.handlers]
    training = steps(broken_off)
    next(training)
    assert [handler.stream for handler in broken_off.logger.handlers] != streams
    training.close()
    assert [handler.stream for handler in broken_off.logger.handlers] == streams


@pytest.fixture(scope="module")
def terminal(tmp_path_factory) -> tuple[Path, str]:
    """The work folder, and all that ``in_terminal`` writes to a terminal of 200 columns."""
    work_dir = tmp_path_factory.mktemp("terminal")
    code = f"from pathlib import Path; from {__name__} import in_terminal; in_terminal(Path({str(work_dir)!r}))"
    master, slave = os.openpty()
    env = os.environ | {"COLUMNS": "200", "TERM": "xterm", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", code], stdout=slave, stderr=slave, env=env, cwd=root)
    os.close(slave)
    output = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # how Linux tells that the last writer is gone
            break
        if not chunk:
            break
        output += chunk
    os.close(master)
    assert child.wait() == 0, output.decode()
    return work_dir, output.decode()


def test_terminal_keeps_log_lines_above_one_live_line(terminal):
    work_dir, output = terminal
    output = output[: output.index("WHOLE RUN DONE") + 14]
    screen = Terminal(output)
    assert output.count("end of the long line") == 5
    assert sum("word word" in row and row.endswith("end of the long line") for row in screen.rows) == 5
    assert sum(row.strip() == "printed" for row in screen.rows) == 5
    live = [row for row in screen.rows if "img/s" in row]
    assert len(live) == 1, "the live line is rewritten in place, and the lines for files do not reach the terminal"
    assert output.count("img/s") >= 4, "it was shown all along"
    assert re.search(r"iter \d/5  loss .* lr 0\.5 .* data wait .* eta", live[0])
    assert [row for row in screen.rows if row][-1] == "WHOLE RUN DONE"
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l"), "the cursor is shown again"
    assert next(work_dir.glob("whole/*/*.log")).read_text().count("img/s") == 3


def test_terminal_is_given_back_after_an_interrupt(terminal):
    output = terminal[1].split("WHOLE RUN DONE")[1].split("NEXT RUN")[0]
    assert output.count("img/s") >= 2
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")
    assert [row for row in Terminal(output).rows if row][-1].endswith("INTERRUPTED RUN DONE")
