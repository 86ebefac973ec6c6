"""Cells: commands whose results are kept, so that an experiment of many commands can be stopped and resumed.

    DIR/NAME.json    the record of a finished cell, written atomically
    DIR/runs/NAME/   the folder that it runs in: output.txt and whatever the command writes

A cell here is a fine-tuning run, but any command with a name, an identity and a function that reads its result will do.
"""

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from densessl.errors import DensesslError
from densessl.files import sha256, written_whole
from densessl.version import __version__
from densessl.wording import count

OUTPUT = "output.txt"
IDENTITY = "identity.json"
RUN = "{run}"
CHECKPOINTS = ("**/*.pth", "last_checkpoint")
TAIL = 15  # lines of output that a failure shows
POLL = 0.1  # seconds between polls of running cells


class CompareError(DensesslError, ValueError):
    """The experiment cannot run: invalid arguments, missing files, or results of another experiment in its folder."""


@dataclass(frozen=True)
class Cell:
    """One command, and what determines its result.

    Attributes:
        name: Name of its file and folder; may have folders: ``"cells/a"``.
        identity: Plain data that determines the result. A finished cell with the same identity is skipped. It has
            hashes of files, not their paths.
        command: Command to run from the current folder; ``{run}`` in it stands for DIR/runs/NAME.
        read: Reads the result, as plain data, from the folder that the cell ran in. Raises ValueError if there is none.
        about: Further plain data to keep, which does not determine the result.
        environment: Environment variables to set.
        keeps: Glob patterns of files in its folder that are results; their hashes are stored with the result.
        drops: Glob patterns of files in its folder to delete when the cell is done.
        resumes: Whether the command can continue from the files of a stopped run; if not, its folder is emptied first.
    """

    name: str
    identity: Mapping[str, Any]
    command: Sequence[str]
    read: Callable[[Path], Any]
    about: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    keeps: Sequence[str] = ()
    drops: Sequence[str] = CHECKPOINTS
    resumes: bool = False


@dataclass(frozen=True)
class Failure:
    """Why a cell has no result, and the end of its output."""

    name: str
    reason: str
    tail: str
    output: Path

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}; the end of {self.output}:\n" + "".join(
            f"    {line}\n" for line in self.tail.splitlines()
        )


def run_cells(
    cells: Iterable[Cell],
    folder: str | Path,
    jobs: int = 1,
    redo: bool = False,
    explain: Callable[[str, Any, Any], str] = lambda key, found, expected: f"{found!r} there, {expected!r} now",
    accepted: Callable[[list[Cell]], None] = lambda todo: None,
    finished: Callable[[Cell, dict | Failure], None] = lambda cell, outcome: None,
) -> tuple[dict[str, dict], list[Failure]]:
    """Run the cells that are not done yet.

    Args:
        cells: Cells in the order to run; all run, even if others fail.
        folder: DIR.
        jobs: Number of simultaneous cells.
        redo: Run a cell again that was done with another identity, instead of refusing.
        explain: Turns the key of an entry that differs between two identities, and its two values, into text.
        accepted: Called with the cells to run, before the first one starts.
        finished: Called with each cell that has ended, and its record or failure.

    Returns:
        The records by name, including earlier ones, in the order of ``cells``; and the failures.

    Raises:
        CompareError: Two cells have one name, a cell was done with another identity, or another command, or a run that
            it started, is still working in DIR. Nothing was run.
    """
    cells, folder = list(cells), Path(folder)
    duplicates = {cell.name for cell in cells if sum(cell.name == other.name for other in cells) > 1}
    if duplicates:
        raise CompareError(f"cells of the same name: {sorted(duplicates)}")
    with only_one(folder) as lock:
        records = {cell.name: record for cell in cells if (record := read_record(folder, cell.name)) is not None}
        refuse_others(cells, records, folder, redo, explain)
        records = {c.name: records[c.name] for c in cells if c.name in records and same_identity(c, records[c.name])}
        todo, failures = [cell for cell in cells if cell.name not in records], []
        accepted(todo)
        for cell, outcome in _run(todo, folder, jobs, lock):
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                records[cell.name] = outcome
            finished(cell, outcome)
    return {cell.name: records[cell.name] for cell in cells if cell.name in records}, failures


def record_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def read_record(folder: Path, name: str) -> dict | None:
    """Read the record of a finished cell; None if it is not done.

    Raises:
        CompareError: The file is no record.
    """
    path = record_path(folder, name)
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["identity"], record["result"]
    except (ValueError, KeyError, TypeError) as error:
        raise CompareError(f"{path} is not the record of a cell ({error!r}); remove it to run the cell anew") from error
    return record


def same_identity(cell: Cell, record: Mapping[str, Any]) -> bool:
    return plain(cell.identity) == record["identity"]


def refuse_others(
    cells: Sequence[Cell], records: Mapping[str, Mapping], folder: Path, redo: bool, explain: Callable
) -> None:
    """Raise a CompareError with the differences if cells were done with another identity, unless ``redo`` is set."""
    others = [cell for cell in cells if cell.name in records and not same_identity(cell, records[cell.name])]
    if not others or redo:
        return
    found, expected = records[others[0].name]["identity"], plain(others[0].identity)
    keys = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
    differs = "".join(f"\n  {key}: {explain(key, found.get(key), expected.get(key))}" for key in keys)
    more = f"\nand {count(len(others) - 1, 'more cell')}" if len(others) > 1 else ""
    raise CompareError(
        f"{record_path(folder, others[0].name)} is the result of something else:{differs}{more}\n"
        "Choose another --out, or run such cells again with --redo"
    )


def write_json(path: Path, content: Any) -> None:
    """Write plain data atomically as JSON."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """Return a value as JSON reads it back: with lists for tuples, and strings as keys."""
    return json.loads(json.dumps(value))


@contextmanager
def only_one(folder: Path) -> Iterator[int]:
    """Hold the lock of an experiment's folder, as a file descriptor. Processes that inherit the descriptor hold the
    lock too: after a SIGKILL of this process, the folder is free once the runs left behind have ended.

    Raises:
        CompareError: Another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CompareError(f"{folder}: another command is at work there, or a run that it left behind") from None
        yield file.fileno()


def _run(cells: Sequence[Cell], folder: Path, jobs: int, lock: int) -> Iterator[tuple[Cell, dict | Failure]]:
    """Run cells, ``jobs`` at a time, and yield each with its outcome when it ends. Leaving the generator, for example
    by Ctrl-C, ends the cells that still run."""
    waiting, running = list(reversed(cells)), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop()
                running[cell.name] = (cell, _start(cell, folder / "runs" / cell.name, lock), time.monotonic())
            for cell, process, began in list(running.values()):
                if process.poll() is not None:
                    del running[cell.name]
                    yield cell, _outcome(cell, process.returncode, time.monotonic() - began, folder)
            time.sleep(POLL if running else 0)
    finally:
        for _, process, _ in running.values():
            os.killpg(process.pid, signal.SIGTERM)
        for _, process, _ in running.values():
            process.wait()


def _start(cell: Cell, run: Path, lock: int) -> subprocess.Popen:
    """Start a cell, in an empty folder unless it resumes, as a process group of its own, so that its loader's workers
    end with it."""
    identity, sittings = plain(cell.identity), _sittings(cell, run)
    if not sittings:
        shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True, exist_ok=True)
    if cell.resumes:
        write_json(run / IDENTITY, dict(identity=identity, sittings=sittings + 1))
    with open(run / OUTPUT, "a") as output:
        return subprocess.Popen(
            [word.replace(RUN, str(run)) for word in cell.command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Unbuffered, so that stdout and stderr keep their order, and the reason of a failure comes last.
            env={**os.environ, "PYTHONUNBUFFERED": "1", **cell.environment},
            pass_fds=[lock],
            start_new_session=True,
        )


def _sittings(cell: Cell, run: Path) -> int:
    """Return how often a cell that resumes was started so far with its identity."""
    begun = run / IDENTITY
    if not (cell.resumes and begun.is_file()):
        return 0
    content = json.loads(begun.read_text(encoding="utf-8"))
    return content["sittings"] if content.get("identity") == plain(cell.identity) else 0


def _outcome(cell: Cell, code: int, seconds: float, folder: Path) -> dict | Failure:
    """Read the result of a cell that has ended, and store it."""
    run = folder / "runs" / cell.name

    def failure(reason: str) -> Failure:
        lines = (run / OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
        return Failure(cell.name, reason, "\n".join(lines[-TAIL:]), run / OUTPUT)

    if code != 0:
        return failure(f"exit code {code}")
    try:
        result = plain(cell.read(run))
    except ValueError as error:
        return failure(str(error))
    kept = sorted({path for pattern in cell.keeps for path in run.glob(pattern)})
    record = dict(
        name=cell.name,
        identity=plain(cell.identity),
        about=plain(cell.about),
        command=command_text(cell, run),
        result=result,
        files={str(path.relative_to(run)): sha256(path) for path in kept},
        seconds=round(seconds, 1),  # since the last start
        sittings=_sittings(cell, run) or 1,
        densessl=__version__,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_json(record_path(folder, cell.name), record)
    for pattern in cell.drops:
        for path in run.glob(pattern):
            if path not in kept:
                path.unlink()
    return record


def command_text(cell: Cell, run: Path) -> str:
    """Return the command as a user would type it."""
    words = [f"{name}={shlex.quote(value)}" for name, value in cell.environment.items()]
    program, *arguments = (word.replace(RUN, str(run)) for word in cell.command)
    program = "python" if Path(program).name.startswith("python") else program
    return " ".join([*words, shlex.join([program, *arguments])])
