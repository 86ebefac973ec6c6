"""What ``--help`` says, of every command and its subcommands."""

import argparse
from importlib import import_module

import pytest

from densessl.cli.guard import EXIT_CODES

NAMES = ("train", "data", "regions", "look", "segment", "export", "convert", "compare", "cityscapes")


def parsers():
    for name in NAMES:
        top = import_module(f"densessl.cli.{name}").parser()
        yield pytest.param(top, id=name)
        for action in top._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from (pytest.param(each, id=f"{name} {word}") for word, each in action.choices.items())


@pytest.mark.parametrize("parser", parsers())
def test_every_argument_says_what_it_is(parser):
    for action in parser._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), action
    text = parser.format_help()
    assert "default: None" not in text and "default: False" not in text


@pytest.mark.parametrize("name", NAMES)
def test_every_command_lists_the_exit_codes(name):
    assert EXIT_CODES in import_module(f"densessl.cli.{name}").parser().format_help()
