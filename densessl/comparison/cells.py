"""Cells: commands whose results are kept, so that an experiment of many commands may span several sittings.

    DIR/NAME.json    what a finished cell left, written at once or not at all
    DIR/runs/NAME/   where it runs: output.txt and whatever it writes

A cell is a fine-tuning run here, but need not be one: anything that is a name, an identity, a command and a way to read
its result.
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

OUTPUT = "output.txt"
IDENTITY = "identity.json"
RUN = "{run}"
CHECKPOINTS = ("**/*.pth", "last_checkpoint")
TAIL = 15  # lines of its output that a failure shows
POLL = 0.1  # seconds between two looks at what runs


class CompareError(DensesslError, ValueError):
    """The experiment cannot be run as asked: bad arguments, missing files, or results of another one in its folder."""


@dataclass(frozen=True)
class Cell:
    """One command and what decides its result.

    Attributes:
        name: Of its file and folder; ``"cells/a"`` is one in a folder of DIR.
        identity: Plain data. A finished cell is skipped where its identity is the same. Where things lie is no part of
            it: files are told by their hashes.
        command: To run, from the current folder; ``{run}`` in it stands for DIR/runs/NAME.
        read: From the folder it ran in to its result, as plain data. ValueError where there is none.
        about: Plain data to keep that does not decide the result.
        environment: Variables to set.
        keeps: Files of its folder (glob patterns) that are results and stay; their hashes are kept with the result.
        drops: Files of its folder (glob patterns) to delete when it is done.
        resumes: Whether the command goes on from what a stopped run of it has left in the folder, which is empty else.
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
    """Why a cell has no result, and the end of what it printed."""

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
    explain: Callable[[str, Any, Any], str] = lambda key, found, wanted: f"{found!r} there, {wanted!r} now",
    accepted: Callable[[list[Cell]], None] = lambda todo: None,
    finished: Callable[[Cell, dict | Failure], None] = lambda cell, outcome: None,
) -> tuple[dict[str, dict], list[Failure]]:
    """Run the cells that are not done yet.

    Args:
        cells: In this order; all run, whatever becomes of the others.
        folder: DIR.
        jobs: How many at once.
        redo: Run a cell anew that was done with another identity, instead of refusing.
        explain: An entry's key and its two values to a text, where identities differ.
        accepted: Called with the cells that are to run, before the first does.
        finished: Called with each cell that has ended, and its record or failure.

    Returns:
        The records by name, those of earlier sittings too, in the order of ``cells``; and the failures.

    Raises:
        CompareError: Names that occur twice; a cell was done with another identity; another command is at work in DIR,
            or what it started still is. Nothing has been run then.
    """
    cells, folder = list(cells), Path(folder)
    twice = {cell.name for cell in cells if sum(cell.name == other.name for other in cells) > 1}
    if twice:
        raise CompareError(f"cells of the same name: {sorted(twice)}")
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
    """What a finished cell left; None where it is not done.

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
    """Raise CompareError with what differs where cells were done with another identity, unless they are to run anew."""
    others = [cell for cell in cells if cell.name in records and not same_identity(cell, records[cell.name])]
    if not others or redo:
        return
    found, wanted = records[others[0].name]["identity"], plain(others[0].identity)
    keys = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
    differs = "".join(f"\n  {key}: {explain(key, found.get(key), wanted.get(key))}" for key in keys)
    more = f"\nand {len(others) - 1} more cells" if len(others) > 1 else ""
    raise CompareError(
        f"{record_path(folder, others[0].name)} is the result of something else:{differs}{more}\n"
        "Give another --out, or run such cells anew with --redo"
    )


def write_json(path: Path, content: Any) -> None:
    """Write plain data so that the file is at all times absent, the old one, or whole."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists, keys are strings."""
    return json.loads(json.dumps(value))


@contextmanager
def only_one(folder: Path) -> Iterator[int]:
    """Hold the lock of an experiment's folder, as a file descriptor. What is started with the descriptor holds the lock
    with it: after a SIGKILL of this process, the folder is free when the run that it left behind has ended.

    Raises:
        CompareError: It is held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CompareError(f"{folder}: another command is at work there, or a run that it left behind") from None
        yield file.fileno()


def _run(cells: Sequence[Cell], folder: Path, jobs: int, lock: int) -> Iterator[tuple[Cell, dict | Failure]]:
    """Run cells, ``jobs`` at a time, and give each with its outcome as it ends. What still runs when this is left, by
    Ctrl-C for one, is ended."""
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
    """Start a cell, in an empty folder unless it resumes. It is a process group of its own, so that its loader's
    workers end with it."""
    wanted, sittings = plain(cell.identity), _sittings(cell, run)
    if not sittings:
        shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True, exist_ok=True)
    if cell.resumes:
        write_json(run / IDENTITY, dict(identity=wanted, sittings=sittings + 1))
    with open(run / OUTPUT, "a") as output:
        return subprocess.Popen(
            [word.replace(RUN, str(run)) for word in cell.command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Unbuffered, so that lines of print and of stderr keep their order: a failure's reason comes last.
            env={**os.environ, "PYTHONUNBUFFERED": "1", **cell.environment},
            pass_fds=[lock],
            start_new_session=True,
        )


def _sittings(cell: Cell, run: Path) -> int:
    """How often a cell that resumes was started so far, with its identity."""
    begun = run / IDENTITY
    if not (cell.resumes and begun.is_file()):
        return 0
    content = json.loads(begun.read_text(encoding="utf-8"))
    return content["sittings"] if content.get("identity") == plain(cell.identity) else 0


def _outcome(cell: Cell, code: int, seconds: float, folder: Path) -> dict | Failure:
    """Read the result of a cell that has ended, and keep it."""
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
        seconds=round(seconds, 1),  # of the last sitting
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
    """The command as one types it."""
    words = [f"{name}={shlex.quote(value)}" for name, value in cell.environment.items()]
    program, *arguments = (word.replace(RUN, str(run)) for word in cell.command)
    program = "python" if Path(program).name.startswith("python") else program
    return " ".join([*words, shlex.join([program, *arguments])])
