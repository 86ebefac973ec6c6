"""A line at the bottom of the terminal that is rewritten in place while log lines scroll above it."""

import logging
import math
import sys
import time
from typing import Any

from mmengine.logging import MMLogger
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


class _AboveLive:
    """A stream whose lines a rich console prints above its live line, unwrapped and with their colours."""

    def __init__(self, console: Console):
        self._console = console

    def write(self, text: str) -> None:
        self._console.print(Text.from_ansi(text.rstrip("\n")), soft_wrap=True)

    def flush(self) -> None:
        pass


def _for_files_only(record: logging.LogRecord) -> bool:
    return not getattr(record, "shown_live", False)


class LiveLine:
    """The last line of the terminal, rewritten in place while log lines scroll above it.

    Logging handlers keep the stream they were created with, so the handlers of standard output and standard error are
    redirected to the console while the line is shown, and get their streams back when it ends. If stdout is not a
    terminal, all methods do nothing.
    """

    def __init__(self) -> None:
        self._live: Live | None = None
        self._handlers: list[tuple[logging.StreamHandler, Any]] = []
        self._shown = -math.inf

    @property
    def active(self) -> bool:
        return self._live is not None

    def start(self) -> None:
        """Show the line, unless it is shown already."""
        if self.active or not sys.stdout.isatty() or (console := Console()).is_dumb_terminal:
            return
        streams = (sys.stdout, sys.stderr)
        loggers = [logging.getLogger(), *MMLogger._instance_dict.values()]
        for handler in {handler for logger in loggers for handler in logger.handlers}:
            if isinstance(handler, logging.StreamHandler) and handler.stream in streams and handler.stream.isatty():
                self._handlers.append((handler, handler.stream))
                handler.setStream(_AboveLive(console))
                handler.addFilter(_for_files_only)
        self._live = Live(console=console, auto_refresh=False, redirect_stderr=sys.stderr.isatty())
        self._live.start()

    def show(self, done: float, text: str) -> None:
        """Rewrite the line, at most ten times a second: a bar filled to ``done`` (0 to 1), and a text."""
        if self.active and time.monotonic() - self._shown > 0.1:
            self._shown = time.monotonic()
            line = Table.grid(padding=(0, 1))
            line.add_row(ProgressBar(total=1.0, completed=done, width=16), Text(text))
            self._live.update(line, refresh=True)

    def stop(self) -> None:
        """End the line as it was last shown, and give the handlers their streams back."""
        if self.active:
            self._live.stop()
            self._live = None
            while self._handlers:
                handler, stream = self._handlers.pop()
                handler.removeFilter(_for_files_only)
                handler.setStream(stream)
