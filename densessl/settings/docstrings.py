"""Extracts what docstrings say about arguments, one sentence each."""

import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

SECTIONS = re.compile(r"(Args|Arguments|Attributes|Parameters|Keyword Args):\s*$")
# "name: text", "first, second: text", "name (type, optional): text"
ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:, ?\w+)*)\s*(?:\((?:[^()]|\([^()]*\))*\))?\s*:(?:\s+(?P<text>.*))?$")
ROLE = re.compile(r":\w+(?::\w+)*:`~?(?:[^`]*\.)?([^`.<]+)(?:<[^`]*>)?`")
SENTENCE = re.compile(r"(.+?\.)\s")
# Beginnings of entries that only refer to another docstring. A base class often has the meaning itself.
REFERRING = ("see ", "as of ")
ABBREVIATIONS = ("e.g.", "i.e.", "cf.", "vs.", "etc.")


@cache
def meanings_of(kind: Callable[..., Any] | type) -> dict[str, str]:
    """The first sentence about each argument, by name. It comes from the Google-style sections ``Args:`` and
    ``Attributes:`` in the docstring of a function, or in those of a class, its ``__init__`` and its bases."""
    meanings: dict[str, str] = {}
    elsewhere: dict[str, str] = {}
    for doc in _docstrings(kind):
        for name, text in _entries(doc):
            holder = elsewhere if text.lower().startswith(REFERRING) else meanings
            holder.setdefault(name, _first_sentence(text))
    return elsewhere | meanings


def summary_of(kind: Callable[..., Any] | type) -> str:
    """The first sentence of the docstring, empty where there is none."""
    own = vars(kind).get("__doc__") if inspect.isclass(kind) else getattr(kind, "__doc__", None)
    paragraph = inspect.cleandoc(own or "").partition("\n\n")[0]
    return _first_sentence(paragraph)


def _docstrings(kind: Callable[..., Any] | type) -> Iterator[str]:
    owners = kind.__mro__ if inspect.isclass(kind) else [kind]
    for owner in owners:
        own = vars(owner) if inspect.isclass(owner) else {"__doc__": getattr(owner, "__doc__", None)}
        for doc in (own.get("__doc__"), getattr(own.get("__init__"), "__doc__", None)):
            if isinstance(doc, str):
                yield inspect.cleandoc(doc)


def _entries(doc: str) -> Iterator[tuple[str, str]]:
    """Yield (name, text) for each name in the sections of a docstring."""
    lines = iter(doc.splitlines())
    inside, indent = False, None
    names: list[str] = []
    text: list[str] = []
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if line.strip() and depth == 0:
            yield from ((name, " ".join(text)) for name in names)
            names, text, indent = [], [], None
            inside = SECTIONS.match(line) is not None
        elif inside and line.strip():
            indent = depth if indent is None else indent
            entry = ENTRY.match(line.strip()) if depth == indent else None
            if entry:
                yield from ((name, " ".join(text)) for name in names)
                names = [name.strip(" *") for name in entry["names"].split(",")]
                text = [entry["text"] or ""]
            else:
                text.append(line.strip())
    yield from ((name, " ".join(text)) for name in names)


def _first_sentence(text: str) -> str:
    """The first sentence as plain text, without the markup of Sphinx."""
    text = ROLE.sub(r"\1", " ".join(text.split())).replace("``", "`")
    end = 0
    while match := SENTENCE.match(text[end:]):
        end += len(match[1])
        if not text[:end].endswith(ABBREVIATIONS):
            return text[:end].rstrip(".;")
        end += 1
    return text.rstrip(".;")
