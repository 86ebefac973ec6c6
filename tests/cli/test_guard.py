"""How commands end: exit codes, and what is told on standard error."""

import errno
from pathlib import Path

import pytest

from densessl.cli import COMMANDS, main
from densessl.cli.guard import EXIT_CODES, guarded, message_of
from densessl.errors import CheckpointError, LoadError, SettingError

ROOT = Path(__file__).parents[2]


def raising(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingError("views.0.size: found -1, expected at least 1"), 2),
        (CheckpointError("a.pth is damaged"), 2),
        (LoadError("a.pth is of another network"), 2),
        (FileNotFoundError(errno.ENOENT, "no such file", "photos"), 2),
        (OSError(errno.ENOSPC, "no space left on device", "epoch_1.pth"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_a_user_can_mend_is_told_in_a_line(error, code, capsys):
    assert guarded(raising(error)) == code
    text = capsys.readouterr().err
    said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
    assert text.count("\n") == 1 and (said in text or code == 130)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EEXIST, "is a file, expected a folder"),
        (errno.ENOTDIR, "leads through a file, expected a folder"),
        (errno.EISDIR, "is a folder, expected a file"),
    ],
)
def test_files_and_folders_in_each_other_s_place_are_told_as_such(number, said, capsys):
    assert guarded(raising(OSError(number, "of Python", "a/b"))) == 2
    assert capsys.readouterr().err == f"error: a/b: {said}\n"


@pytest.mark.parametrize("error", [ValueError("of a library"), TypeError("ours"), KeyError("x"), AssertionError()])
def test_a_fault_of_the_program_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        guarded(raising(error))


def test_debug_shows_the_traceback_of_a_users_error():
    with pytest.raises(SettingError):
        guarded(raising(SettingError("x")), debug=True)


def test_a_number_is_the_exit_code_and_nothing_is_done():
    assert guarded(lambda: 1) == 1 and guarded(lambda: None) == 0


def test_of_a_worker_s_error_its_own_message_is_told():
    text = "Caught UnreadableImage in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  …\n"
    assert message_of(RuntimeError(f"{text}densessl.data.decode.UnreadableImage: a.jpg: empty\n")) == "a.jpg: empty"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_debug(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, *{"regions": ["build"], "look": ["knn"], "data": ["check"]}.get(command, []), "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0 and f"usage: densessl {command}" in text and "--debug" in text


def test_no_command_and_a_wrong_one(capsys):
    assert main([]) == 2 and main(["--help"]) == 0 and main(["--version"]) == 0
    assert main(["trian"]) == 2
    assert "did you mean train?" in capsys.readouterr().err


def test_the_readme_has_the_exit_codes():
    codes = [line.split()[0] for line in EXIT_CODES.splitlines()[1:]]
    table = (ROOT / "README.md").read_text()
    assert codes == ["0", "1", "2", "3", "5", "130"] and all(f"\n| {code} | " in table for code in codes)
