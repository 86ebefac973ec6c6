"""``KEY=VALUE`` words of the command line: which values they give, and which are refused."""

import argparse

import pytest

from densessl.cli.options import Options, tell_errors_in_a_line


def parsed(*words):
    parser = argparse.ArgumentParser(prog="densessl train")
    parser.add_argument("--set", nargs="+", action=Options, default={})
    tell_errors_in_a_line(parser)
    return parser.parse_args(["--set", *words]).set


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("dict(type='linear', start=0, end=1.5)", dict(type="linear", start=0, end=1.5)),
        ("[dict(type='DenseCL', correspondence=dict(type='OverlapGrid', size=7))]",
         [dict(type="DenseCL", correspondence=dict(type="OverlapGrid", size=7))]),
        ("dict(type=timm.resnet18, out_indices=(3, -1), init=None, norm=BN)",
         dict(type="timm.resnet18", out_indices=(3, -1), init=None, norm="BN")),
        ('{"type": "step", 3: [True]}', {"type": "step", 3: [True]}),
        ("(0.2,1.0)", (0.2, 1.0)),
        ("[a,b]", ["a", "b"]),
        ("a=b", "a=b"),
        ("epoch_{}.pth", "epoch_{}.pth"),
        ("", ""),
    ],
)  # fmt: skip
def test_values(text, value):
    assert parsed(f"model.key={text}") == {"model.key": value}


@pytest.mark.parametrize(
    "word",
    ["a.b=[1,2", "a.b=f(1,2)", "a.b=dict(x=1", "a.b=dict(1)", "a.b=dict(**x)", "a.b=dict(x=open('f'))", "a.b={1, 2}"],
)
def test_a_value_that_cannot_be_read_is_told_with_its_key(word, capsys):
    with pytest.raises(SystemExit):
        parsed(word)
    said = capsys.readouterr().err
    assert (
        said.startswith(f"error: --set: a.b: found {word.removeprefix('a.b=')!r}, expected") and said.count("\n") == 1
    )


@pytest.mark.parametrize("word", ["=3", "a..b=3", ".=3", "a.=3", "a"])
def test_a_word_without_key_is_refused(word, capsys):
    with pytest.raises(SystemExit):
        parsed(word)
    assert f"found {word!r}, expected KEY=VALUE" in capsys.readouterr().err


def test_options_add_up():
    assert parsed("a=1", "b=2", "--set", "b=3") == {"a": 1, "b": 3}
