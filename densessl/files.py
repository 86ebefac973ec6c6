"""Files written whole or not at all, and their hashes."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from densessl.errors import FileMissing, SettingError


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_picture(path: str | Path) -> None:
    """Nothing, if a picture can be saved under a name, so that no work is done for one that cannot.

    Raises:
        SettingError: pictures have no such ending.
        FileMissing: there is no folder for it.
    """
    path, endings = Path(path), Image.registered_extensions()
    if path.suffix.lower() not in endings:
        raise SettingError(f"{path}: expected a name that ends as pictures do: .png, .jpg")
    if not path.parent.is_dir():
        raise FileMissing(f"{path}: there is no folder {path.parent}")


def require_other_file(out: str | Path, source: str | Path) -> None:
    """Nothing, if writing ``out`` leaves the file ``source`` as it is.

    Raises:
        SettingError: both are the same file.
    """
    if os.path.exists(out) and os.path.exists(source) and os.path.samefile(out, source):
        raise SettingError(f"{out}: is the file that is read, expected another one to write")


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """``path`` is at all times absent, the old file, or whole: what the block wrote under the temporary name that it is
    given, beside ``path``, is flushed to the disk and moved into place. Where the block raises, ``path`` is untouched.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut. Windows cannot open folders, and needs no such call."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
