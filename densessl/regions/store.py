"""The reader of a store of regions, which is built once for a data set and used by all runs."""

import itertools
import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from densessl.constraints import Count
from densessl.data.decode import EncodedImage
from densessl.files import sha256
from densessl.regions.file_digest import UNKNOWN, digest_of_file
from densessl.regions.proposals import Proposals
from densessl.regions.source import RegionSource, SelectionConfig
from densessl.regions.store_format import (
    BOXES,
    FORMAT,
    HEADER_BYTES,
    INDEX,
    JOURNAL,
    MANIFEST,
    PATHS,
    READABLE,
    StoreError,
    StoreMissing,
    encoded,
    entry_type,
    header,
    path_hash,
    unpack,
)
from densessl.registry import REGIONS
from densessl.wording import nearest

_COMPARED = 20000  # most paths compared with a missing one, which takes about a second


@REGIONS.register_module()
class RegionStore(RegionSource):
    """Reads the regions of a data set from files made by ``densessl regions build`` or ``densessl regions import``.

    Opening a store of any size reads only the manifest and maps the files into memory; workers share their pages. A
    store pickles as its path. Iterating yields (path, (width, height), one Proposals per draw) of every image, in the
    stored order.

    Args:
        path: folder of the store.
        prefix: prefix that turns a data set's paths into the store's: ``"train2017/"`` if the store was built from the
            folder above the data set.
        strip: prefix to remove from a data set's paths first: ``"train2017/"`` if the store was built from that folder,
            and the data set is the folder above.
        allow_changed: use the regions of an image although its file has changed since they were made, as when images
            were saved anew. Their sizes must still be equal.
        select, uniforms: see :class:`RegionSource`.

    Attributes:
        manifest: content of ``manifest.json``.

    Raises:
        StoreError: there is no store, or it is unfinished, truncated or of another version.
    """

    def __init__(
        self,
        path: str | Path,
        select: Sequence[SelectionConfig] = (),
        uniforms: Mapping[str, Count] | None = None,
        prefix: str = "",
        strip: str = "",
        allow_changed: bool = False,
    ):
        super().__init__(select, uniforms)
        self.path = Path(path)
        self.prefix, self.strip = prefix, strip
        self.allow_changed = allow_changed
        self._open()

    def _open(self) -> None:
        self.manifest = _manifest(self.path)
        version = self.manifest["version"]
        boxes, index, self._paths = (_mapped(self.path / name, self.manifest) for name in (BOXES, INDEX, PATHS))
        for name, file in ((BOXES, boxes), (INDEX, index)):
            if file[:HEADER_BYTES] != header(version):
                raise StoreError(f"{self.path / name} does not begin as {FORMAT} of version {version} do: build anew")
        self._boxes = np.frombuffer(boxes, "<u2", offset=HEADER_BYTES).reshape(-1, 5)
        self._index = np.frombuffer(index, entry_type(self.draws, version), offset=HEADER_BYTES)

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name not in ("_boxes", "_index", "_paths")}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._open()

    @property
    def draws(self) -> int:
        """Number of draws of regions per image."""
        return self.manifest["draws"]

    def __len__(self) -> int:
        return self.manifest["images"]

    def __iter__(self) -> Iterator[tuple[str, tuple[int, int], list[Proposals]]]:
        for path in self.paths():
            entry = self._entry(path)
            yield path, _size(entry), [self._proposals(entry, draw) for draw in range(self.draws)]

    def paths(self) -> Iterator[str]:
        """The paths of the images, in the stored order."""
        start = 0
        while (end := self._paths.find(b"\0", start)) >= 0:
            yield self._paths[start:end].decode("utf-8", "surrogateescape")
            start = end + 1

    def __contains__(self, path: str) -> bool:
        return self._find(path) is not None

    def lookup(self, path: str, draw: int = 0) -> tuple[Proposals, tuple[int, int]]:
        """The regions of an image, and its (width, height) in pixels.

        Args:
            path: the image's path in the store.
            draw: index of the draw.

        Raises:
            StoreError: the store does not have the image; the message names the most similar one.
            IndexError: the store does not have the draw.
        """
        if not 0 <= draw < self.draws:
            raise IndexError(f"{self.path}: draw {draw} of {self.draws}")
        entry = self._entry(path)
        return self._proposals(entry, draw), _size(entry)

    def digest(self, path: str) -> int:
        """Digest of the file of an image when its regions were made (:mod:`densessl.regions.file_digest`); 0 if the
        store does not have it, as one of version 1 or of imported boxes. ``path`` is the image's path in the store."""
        return int(self._entry(path)["digest"]) if self.manifest["version"] > 1 else UNKNOWN

    def propose(self, path: str, image: EncodedImage, rng: np.random.Generator, epoch: int) -> Proposals:
        """The regions of an image in draw ``epoch % draws``.

        Raises:
            StoreError: the store does not have the image, or made its regions of another file.
        """
        name = self._name(path)
        found, size = self.lookup(name, epoch % self.draws)
        if size != tuple(image.source_size):
            raise StoreError(
                f"{self.path}: the regions of {name!r} were made of an image of {size[0]} x {size[1]} pixels, "
                f"{image.path} has {image.source_size[0]} x {image.source_size[1]}. Build the store of these images"
            )
        self._refuse_changed(name, image.path)
        return found

    def require(self, path: str, root: str = "") -> None:
        """Check that the store has an image of the data set, or could not read it when it was built.

        Args:
            root: folder of the data set; the image's file there is compared with the one that was read then.

        Raises:
            StoreError: neither is so, and the message names the most similar image; or the file has changed.
        """
        name = self._name(path)
        if name not in self.manifest["about"].get("unreadable", {}):
            self._entry(name)
            if root:
                self._refuse_changed(name, os.path.join(root, path))

    def _refuse_changed(self, name: str, place: str) -> None:
        expected = UNKNOWN if self.allow_changed else self.digest(name)
        if expected != UNKNOWN and digest_of_file(place) not in (UNKNOWN, expected):
            raise StoreError(
                f"{self.path}: {place} has changed since its regions were made: the file has another content. Build "
                "the store of these images anew; or, if the files were only saved anew and show the same, give "
                "`regions.allow_changed=True`"
            )

    def _name(self, path: str) -> str:
        """The path in the store of an image of the data set."""
        return self.prefix + path.removeprefix(self.strip)

    def verify(self) -> None:
        """Read all files and compare their checksums. Raises StoreError."""
        for name in (BOXES, INDEX, PATHS):
            if sha256(self.path / name) != self.manifest["files"][name]["sha256"]:
                raise StoreError(
                    f"{self.path / name} is damaged: its SHA-256 is not the manifest's. Copy it again, or build anew"
                )

    def _find(self, path: str) -> np.void | None:
        key, name, slots = path_hash(path), encoded(path) + b"\0", len(self._index)
        for slot in range(key, key + slots):
            entry = self._index[slot % slots]
            if entry["hash"] == 0:
                return None
            start = int(entry["path"])
            if entry["hash"] == key and self._paths[start : start + len(name)] == name:
                return entry
        return None

    def _entry(self, path: str) -> np.void:
        entry = self._find(path)
        if entry is None:
            raise StoreError(f"{self.path} has no regions of {path!r}{self._like(path)}")
        return entry

    def _proposals(self, entry: np.void, draw: int) -> Proposals:
        counts = entry["counts"]
        first = int(entry["first"]) + int(counts[:draw].sum())
        return unpack(self._boxes[first : first + int(counts[draw])], _size(entry), bool(entry["exact"]))

    def _like(self, path: str) -> str:
        """The end of the message about a missing path: a likely cause, or the nearest path, and what to do."""
        parts = path.split("/")
        for cut in range(1, len(parts)):
            tail, head = "/".join(parts[cut:]), "/".join(parts[:cut])
            if tail in self:
                return (
                    f"; it has {tail!r}: it was made of the folder {head}/, the data set is one above. Give "
                    f"`regions.strip={head + '/'!r}`, or that folder as the data"
                )
        longer = self._ending(f"/{path}")
        if longer is not None:
            head = longer.removesuffix(path)
            return (
                f"; it has {longer!r}: it was made of a folder above the data set. Give `regions.prefix={head!r}`, or "
                "that folder as the data"
            )
        near = self._ending(f"/{parts[-1]}")
        if near is None:
            (near,) = nearest(path, itertools.islice(self.paths(), _COMPARED), count=1, cutoff=0)
        return f"; the nearest of its {len(self)} images is {near!r}. Build the store of these images"

    def _ending(self, end: str) -> str | None:
        """The first stored path that ends in ``end``; None if there is none."""
        found = self._paths.find(encoded(end) + b"\0")
        if found < 0:
            return None
        start = self._paths.rfind(b"\0", 0, found) + 1
        return self._paths[start : found + len(encoded(end))].decode("utf-8", "surrogateescape")


def _size(entry: np.void) -> tuple[int, int]:
    return int(entry["width"]), int(entry["height"])


def _manifest(folder: Path) -> dict:
    """Read and check the manifest. Raises StoreError."""
    place = folder / MANIFEST
    if not place.is_file():
        if (folder / JOURNAL).exists():
            raise StoreError(f"{folder}: the store is not finished. Run the same `densessl regions build` again")
        what = f"has no {MANIFEST}" if folder.is_dir() else "is not a folder" if folder.exists() else "does not exist"
        raise StoreMissing(folder, what)
    try:
        manifest = json.loads(place.read_bytes())
    except ValueError as error:
        raise StoreError(f"{place} is not JSON ({error}): copy it again or build anew") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(f"{place} is not that of a store of regions: it does not say format {FORMAT!r}")
    if manifest.get("version") not in READABLE:
        raise StoreError(
            f"{place} says version {manifest.get('version')}, this densessl reads {READABLE[0]} to {READABLE[-1]}: "
            "build anew"
        )
    lacking = {"images", "draws", "boxes", "files", "about"} - manifest.keys()
    if lacking:
        raise StoreError(f"{place} says nothing about {' and '.join(sorted(lacking))}: copy it again or build anew")
    return manifest


def _mapped(place: Path, manifest: dict) -> mmap.mmap:
    expected = manifest["files"].get(place.name, {}).get("bytes")
    if not place.is_file():
        raise StoreError(f"{place} is missing: copy the whole folder, or build anew")
    with open(place, "rb") as file:
        found = file.seek(0, 2)
        if found != expected:
            raise StoreError(
                f"{place} has {found} bytes, the manifest says {expected}: cut short, or of another store. Copy it "
                "again or build anew"
            )
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapped.madvise(mmap.MADV_RANDOM)  # a lookup needs one page, so reading ahead is a waste
    return mapped
