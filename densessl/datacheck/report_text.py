"""A report as text for a terminal."""

from collections.abc import Sequence

from densessl.datacheck.sections import Section

ROWS = 10  # of a table; the files of the report have all
CELL = 78  # letters of a cell; the middle of a longer text is left out


def as_text(verdict: Sequence[str], sections: Sequence[Section], following: Sequence[str]) -> str:
    """Return a report.

    Args:
        verdict: first lines.
        following: last lines: what to do next.
    """
    parts = ["\n".join(verdict)]
    for section in sections:
        lines = [section.title, *(f"  {line}" for line in section.lines), *_table(section)]
        parts.append("\n".join(lines))
    return printable("\n\n".join([*parts, "\n".join(following)]))


def printable(text: str) -> str:
    """Text without what a terminal or file in UTF-8 cannot take: bytes of old file names, and control characters."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def cell(value: object) -> str:
    """Return a number with commas, or text on one line."""
    return f"{value:,}" if isinstance(value, int) else " ".join(str(value).split())


def _table(section: Section) -> list[str]:
    if not section.rows:
        return []
    rows = [section.header, *([_short(cell(value)) for value in row] for row in section.rows[:ROWS])]
    widths = [max(map(len, column)) for column in zip(*rows)]
    numbers = [isinstance(value, int) for value in section.rows[0]]
    lines = [
        "  " + "  ".join(t.rjust(w) if n else t.ljust(w) for t, w, n in zip(row, widths, numbers)).rstrip()
        for row in rows
    ]
    more = len(section.rows) - ROWS
    return [*lines, f"  and {more:,} more (--report and --json have them)"] if more > 0 else lines


def _short(text: str) -> str:
    half = CELL // 2 - 1
    return text if len(text) <= CELL else f"{text[:half]}…{text[-half:]}"
