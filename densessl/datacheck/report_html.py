"""A report as one HTML file that needs no other."""

import base64
from collections.abc import Iterable, Sequence
from html import escape

from densessl.datacheck.contact_sheet import Thumbnail
from densessl.datacheck.report_text import cell, printable
from densessl.datacheck.sections import Section

ROWS = 1000  # of a table; the JSON file has all
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2733; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
.verdict { border-left: .3rem solid #2e8b57; padding: .2rem 1rem; background: #f3f8f5; }
.verdict.bad { border-color: #c0392b; background: #fcf3f2; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .15rem .9rem .15rem 0; vertical-align: top; }
th { border-bottom: 1px solid #b8c2cc; } td { border-bottom: 1px solid #e8ecf0; overflow-wrap: anywhere; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figure img { width: 100%; height: 12rem; object-fit: contain; background: #eef1f4; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; } code { background: #eef1f4; padding: .1rem .3rem; }
"""


def as_html(
    title: str,
    verdict: Sequence[str],
    good: bool,
    sections: Sequence[Section],
    following: Sequence[str],
    thumbnails: Sequence[Thumbnail],
) -> str:
    """Return a report.

    Args:
        verdict: first lines; good: whether they say that training can begin.
        following: last lines: what to do next.
        thumbnails: of the contact sheet.
    """
    body = [
        f"<h1>{_text(title)}</h1>",
        f'<div class="verdict{"" if good else " bad"}">{_paragraphs(verdict)}</div>',
        *map(_section, sections),
    ]
    if thumbnails:
        figures = "".join(map(_figure, thumbnails))
        body += ["<h2>Samples</h2>", f'<div class="sheet">{figures}</div>']
    body += ["<h2>Next</h2>", _paragraphs(following)]
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_text(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{_text(section.title)}</h2>", _paragraphs(section.lines)]
    if section.rows:
        head = "".join(f"<th>{_text(name)}</th>" for name in section.header)
        rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in section.rows[:ROWS])
        parts.append(f"<table>\n<tr>{head}</tr>\n{rows}</table>")
    if len(section.rows) > ROWS:
        parts.append(f"<p>and {len(section.rows) - ROWS:,} more (--json has them)</p>")
    return "\n".join(parts)


def _cell(value: object) -> str:
    return f"<td{' class=number' if isinstance(value, int) else ''}>{_text(cell(value))}</td>"


def _figure(thumbnail: Thumbnail) -> str:
    data = base64.b64encode(thumbnail.jpeg).decode("ascii")
    name = _text(thumbnail.name)
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" alt="{name}">'
        f"<figcaption>{name}<br>{_text(thumbnail.caption)}</figcaption></figure>\n"
    )


def _paragraphs(lines: Iterable[str]) -> str:
    return "".join(f"<p>{_text(line)}</p>" for line in lines)


def _text(text: str) -> str:
    return escape(printable(text))
