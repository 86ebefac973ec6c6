"""Generate the regions of all images of a data set once, and store them.

During a build, the store's folder has a journal of finished images, so a build that was stopped in any way resumes. The
regions of an image depend only on its relative path, its pixels and the seed, so the bytes of the store do not depend
on the number of workers or on interruptions. The journal is as large as the store, and for a moment at the end both are
on disk.
"""

import fcntl
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text
from torch.utils.data import DataLoader, Dataset

from densessl.data.decode import UnreadableImage, open_image
from densessl.data.path_table import PathTable
from densessl.data.rng import keyed_rng
from densessl.data.sources import list_images
from densessl.errors import SettingError
from densessl.regions.file_digest import changed_files, digest_of_file
from densessl.regions.journal import Journal, image_record, refuse_other_plan, unreadable_record
from densessl.regions.proposals import Proposals
from densessl.regions.store import RegionStore
from densessl.regions.store_format import JOURNAL, MANIFEST, StoreError, encoded, pack, path_hash, write_packed
from densessl.registry import REGION_GENERATORS, REGION_SELECTIONS
from densessl.version import __version__
from densessl.wording import at_least, count, duration

LOCK = "lock"
_TELL_EVERY = 10.0  # seconds between lines of progress if stdout is not a terminal


def build(
    source: str | Path,
    out: str | Path,
    generator: dict,
    per_image: int | None = None,
    draws: int = 1,
    workers: int = 0,
    seed: int = 0,
    root: str | Path | None = None,
    select: Sequence[dict] = (),
) -> RegionStore:
    """Generate the regions of a data set, or resume doing so. A finished store is not changed.

    Args:
        source: folder, list file or COCO json of images, see :func:`densessl.data.sources.list_images`. An image that
            is listed twice is done once. An image whose file has changed since an interrupted build did it is done
            again.
        out: folder of the store.
        generator: config of a generator (:mod:`densessl.regions.generators`).
        per_image: number of regions to keep of an image, the first ones; None keeps all.
        draws: number of calls of the generator for each image, each with other random numbers.
        workers: number of worker processes; 0 generates in this process.
        seed: seed of the random numbers.
        root: folder that the paths of a list file or json are relative to.
        select: configs of selections (:mod:`densessl.regions.select`) applied before ``per_image``.

    Returns:
        The store. Images that cannot be read are not in it; its manifest lists them under ``about.unreadable``.

    Raises:
        StoreError: ``out`` was begun with other parameters or images, or is finished and an image has changed since,
            or is being built by another process, or no image
            can be read.
        SettingError: a parameter is invalid.
        DataNotFound: ``source`` does not exist or names no image.
        MissingPackage, ImportError: the generator needs a package that is not installed.
        RuntimeError: the generator failed; the message names the image.
    """
    for name, value in (("per_image", per_image), ("draws", draws)):
        if value is not None and value < 1:
            raise SettingError(f"{name} is {value}, expected at least 1")
    at_least("--workers", workers, 0)
    listed = list_images(source, root)
    images = _Images(listed.root, _each_once(listed.paths), generator, select, per_image, draws, seed)
    plan = json.loads(
        json.dumps(
            {
                "densessl": __version__,
                "generator": generator,
                "select": list(select),
                "per_image": per_image,
                "draws": draws,
                "seed": seed,
                "images": len(images.paths),
                "list": _digest(images.paths),
            }
        )
    )
    if not str(out).strip():
        raise SettingError(f"out: found {str(out)!r}, expected the folder of the store")
    out = Path(out)
    if out.is_dir() and out.resolve() == Path(images.root).resolve():
        raise SettingError(f"out: {out} is the folder of the images, expected another folder for the store")
    if (out / MANIFEST).exists():  # checked before mkdir and lock, which would touch a finished store
        _refuse_other_images(RegionStore(out), plan, images)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        if (out / MANIFEST).exists():
            store = RegionStore(out)
            _refuse_other_images(store, plan, images)
            print(f"{out} is finished already")
        else:
            images.try_generator()
            journal = Journal(out / JOURNAL, plan, len(images.paths))
            try:
                _forget_changed(images, journal)
                _work(images, journal, workers)
                _finish(images, journal, out, plan)
            finally:
                journal.close()
            store = RegionStore(out)
        (out / JOURNAL).unlink(missing_ok=True)
    return store


class _Images(Dataset):
    """Generates the regions of the image at a position of the list: (position, record for the journal)."""

    def __init__(
        self,
        root: str,
        paths: PathTable,
        generator: dict,
        select: Sequence[dict],
        per_image: int | None,
        draws: int,
        seed: int,
    ):
        self.root, self.paths = root, paths
        self.generator = REGION_GENERATORS.build(dict(generator))
        self.select = [REGION_SELECTIONS.build(dict(step)) for step in select]
        self.per_image, self.draws, self.seed = per_image, draws, seed

    def try_generator(self) -> None:
        """Run the generator on a small picture in this process.

        A missing package raises at once, and numba caches the code that workers need.
        """
        rows, columns = np.mgrid[:64, :64].astype(np.uint8) * 4
        try:
            self.generator(np.stack([rows, columns, rows], -1), keyed_rng(0, "try"))
        except (ImportError, ValueError):
            raise
        except Exception as error:
            raise SettingError(f"{self.generator} fails on a picture of 64 x 64: {error!r}") from error

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> tuple[int, bytes]:
        path = self.paths[position]
        place = os.path.join(self.root, path)
        try:
            digest = digest_of_file(place)  # before the pixels, so that a later change is noticed in any case
            pixels = open_image(place).decode().image
        except UnreadableImage as error:
            # The manifest must be the same in every run: remove the folder and the addresses of objects.
            reason = str(error).removeprefix(f"{place}: ")
            return position, unreadable_record(re.sub(r" at 0x[0-9a-f]+", "", reason))
        size = pixels.shape[1], pixels.shape[0]
        try:
            draws = [self._draw(path, pixels, number) for number in range(self.draws)]
            return position, image_record(pack(path, size, draws, digest))
        except Exception as error:
            raise RuntimeError(f"{place}: {type(self.generator).__name__} failed: {error}") from error

    def _draw(self, path: str, pixels: np.ndarray, draw: int) -> Proposals:
        found = self.generator(pixels, keyed_rng(self.seed, "regions.build", draw, path_hash(path)))
        rng = keyed_rng(self.seed, "regions.build.select", draw, path_hash(path))
        for step in self.select:
            found = step(found, (pixels.shape[1], pixels.shape[0]), rng)
        return found.index(slice(self.per_image))


def _each_once(paths: PathTable) -> PathTable:
    return paths if len(set(paths)) == len(paths) else PathTable(dict.fromkeys(paths))


def _digest(paths: PathTable) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(encoded(path) + b"\0")
    return digest.hexdigest()


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Let only one process build in ``out``, with a lock that the kernel releases when the process ends in any way.

    Workers do not inherit this lock, as they would inherit that of ``flock``.
    """
    with open(out / LOCK, "w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(f"{out} is being built by another process; wait for it, or stop it") from error
        yield
        # Only on success: after an error, another process may hold this file open while a third creates a new one.
        (out / LOCK).unlink()


def _refuse_other_images(store: RegionStore, plan: dict, images: _Images) -> None:
    """Raise StoreError if a finished store is of another plan, or an image has changed since."""
    refuse_other_plan(store.path, store.manifest["about"], plan)
    changed = list(changed_files(((path, store.digest(path)) for path in store.paths()), images.root))
    if changed:
        raise StoreError(
            f"{len(changed):,} of the {len(store):,} images of {store.path} have changed in {images.root} since their "
            f"regions were made, such as {changed[0]!r}. Remove {store.path} to build it anew, or give another folder"
        )


def _forget_changed(images: _Images, journal: Journal) -> None:
    """Have the images done again whose files have changed since an interrupted build did them."""
    positions = {images.paths[position]: position for position in map(int, np.flatnonzero(journal.done))}
    expected = ((path, journal.image(position).digest) for path, position in positions.items())
    changed = list(changed_files(expected, images.root))
    for path in changed:
        journal.forget(positions[path])
    if changed:
        print(
            f"{count(len(changed), 'image')} changed since the last build, such as {changed[0]!r}: done again",
            flush=True,
        )


class _Rate(ProgressColumn):
    """A column with the number of images per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.1f} images/s")


def _work(images: _Images, journal: Journal, workers: int) -> None:
    """Generate the missing regions, with a progress bar on a terminal, or else a line every ten seconds.

    Images that could not be read are tried again, since a disk may have been missing.
    """
    todo = np.flatnonzero(~journal.done).tolist()
    if not todo:
        return
    before = len(images) - len(todo)
    if before:
        print(f"{before:,} of {count(len(images), 'image')} done before", flush=True)
    # Forked workers need not import and compile again, and as children of this process they end soon after it, unlike
    # those of multiprocessing's fork server. They are forked here, before the bar starts a thread.
    context = "fork" if workers and sys.platform == "linux" else None
    loader = DataLoader(
        images, batch_size=None, sampler=todo, num_workers=workers, in_order=False, multiprocessing_context=context
    )
    records = iter(loader)
    terminal = sys.stdout.isatty()
    columns = BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(), "{task.fields[unreadable]} unreadable"
    with Progress(*columns, disable=not terminal, speed_estimate_period=60) as bar:
        task = bar.add_task("", total=len(images), completed=before, unreadable=0)
        begun = told = time.monotonic()
        unreadable = 0
        for done, (position, record) in enumerate(records, 1):
            journal.append(position, record)
            unreadable += bool(journal.unreadable[position])
            bar.update(task, advance=1, unreadable=unreadable)
            now = time.monotonic()
            if not terminal and (now - told >= _TELL_EVERY or done == len(todo)):
                told = now
                rate = done / (now - begun)
                print(
                    f"{before + done:,} of {count(len(images), 'image')}, {rate:.1f} images/s, "
                    f"{duration((len(todo) - done) / rate)} to go, {unreadable} unreadable",
                    flush=True,
                )


def _finish(images: _Images, journal: Journal, out: Path, plan: dict) -> None:
    """Write the store from the journal."""
    unreadable = np.flatnonzero(journal.unreadable)
    if not journal.done.any():
        raise StoreError(
            f"none of the {count(len(images), 'image')} of {images.root} could be read, the first, "
            f"{images.paths[0]!r}, since: {journal.reason(0)}"
        )
    about = plan | {"unreadable": {images.paths[position]: journal.reason(position) for position in unreadable}}
    done = (int(position) for position in np.flatnonzero(journal.done))
    write_packed(out, ((images.paths[position], journal.image(position)) for position in done), about)
