"""Read files, also out of zip and tar archives, which count as folders: ``photos.zip/indoor/1.jpg``."""

import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from densessl.errors import SettingError

ARCHIVES = (".zip", ".tar")
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
LARGEST = 1 << 30  # bytes of an image file


def read_file(path: str | os.PathLike) -> bytes:
    """The bytes of a file, or of a member of an archive.

    Raises:
        OSError: there is no such file.
        ValueError: it is a pipe or a device, which would block, or larger than an image can be.
    """
    path = os.fspath(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except NotADirectoryError:
        archive = archive_of(path)
        if archive is None:
            raise
        return _member(archive, os.path.relpath(path, archive))
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(21, "Is a directory", path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file but a pipe, socket or device")
        if status.st_size > LARGEST:
            raise ValueError(f"{status.st_size:,} bytes, more than an image file may have ({LARGEST:,})")
        return file.read()


def is_archive(path: str | os.PathLike) -> bool:
    """Whether a file is an archive to read images from, by its name.

    Raises:
        SettingError: it is a compressed tar, of which no member can be read without all that come before it.
    """
    name = os.fspath(path).lower()
    if name.endswith(COMPRESSED_TARS):
        raise SettingError(
            f"{path}: a compressed tar can be read from its beginning only. Unpack it, or make it a .tar or .zip"
        )
    return name.endswith(ARCHIVES)


def archive_of(path: str | os.PathLike) -> str | None:
    """The archive that a path leads through; None if there is none."""
    for parent in Path(path).parents:
        if parent.is_file():
            return os.fspath(parent) if parent.suffix.lower() in ARCHIVES else None
    return None


def members(archive: str | os.PathLike) -> Iterator[str]:
    """Names of the files in an archive, in its order.

    Raises:
        SettingError: it is no archive, or damaged.
    """
    yield from _index(*_version(archive))


def _member(archive: str, name: str) -> bytes:
    index = _index(*_version(archive))
    if name not in index:
        raise FileNotFoundError(2, f"no such file in {archive}", name)
    start, size = index[name]
    if size > LARGEST:
        raise ValueError(f"{size:,} bytes, more than an image file may have ({LARGEST:,})")
    if start is None:
        try:
            return _zip(*_version(archive), os.getpid()).read(name)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:  # damaged, or encrypted
            raise ValueError(str(error)) from error
    with open(archive, "rb") as file:
        return os.pread(file.fileno(), size, start)


def _version(archive: str | os.PathLike) -> tuple[str, int, int]:
    """The path and what changes when the file does."""
    status = os.stat(archive)
    return os.fspath(archive), status.st_mtime_ns, status.st_size


@lru_cache(maxsize=16)
def _index(archive: str, mtime: int, size: int) -> dict[str, tuple[int | None, int]]:
    """By name, where a member's bytes begin in the archive (None: it has to be unpacked) and how many they are."""
    try:
        if archive.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as opened:
                return {each.filename: (None, each.file_size) for each in opened.infolist() if not each.is_dir()}
        with tarfile.open(archive, "r:") as opened:
            return {each.name.removeprefix("./"): (each.offset_data, each.size) for each in opened if each.isfile()}
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, UnicodeError) as error:
        raise SettingError(f"{archive} cannot be read as an archive: {error}") from error


@lru_cache(maxsize=16)
def _zip(archive: str, mtime: int, size: int, process: int) -> zipfile.ZipFile:
    """An open zip file of this process: processes that share one would move each other's position."""
    return zipfile.ZipFile(archive)
