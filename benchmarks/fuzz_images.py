"""Mutate real images and read them: none may crash or hang the reader, take too much memory, or come out wrong unseen.

    python benchmarks/fuzz_images.py photos/ --count 5000 --json fuzz.json

Each file of the folder, and the same picture as PNG, WebP, TIFF, BMP, GIF and progressive JPEG, is damaged in one of
these ways: bits flipped, bytes zeroed, a part cut out, the end cut off, the end cut off and closed by an end marker,
a part repeated, the header's numbers changed. The reader either refuses it or returns the pixels that OpenCV, a decoder
of other authors, returns for the same bytes; of a picture that OpenCV refuses, pixels are compared with the undamaged
ones. AVIF is left out: it stores no checksums, and OpenCV's builds have no decoder to compare with. Wrong is a picture
in which more than 1 % of pixels differ by more than 20 of 255.

Every file is read in a child process with a limit of memory (1 GB above its start) and of time (10 s).
Exit code: 0 none is wrong, 1 some are.
"""

import argparse
import io
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from densessl.data.decode import UnreadableImage, read_image
from densessl.data.sources import list_images

FORMATS = {
    "jpeg": dict(format="JPEG", quality=90),
    "progressive": dict(format="JPEG", quality=90, progressive=True),
    "png": dict(format="PNG"),
    "webp": dict(format="WEBP", quality=90),
    "tiff": dict(format="TIFF"),
    "lzw": dict(format="TIFF", compression="tiff_lzw"),
    "bmp": dict(format="BMP"),
    "gif": dict(format="GIF"),
    "jp2": dict(format="JPEG2000", quality_layers=[20]),
}
SECONDS, MEMORY = 10, 1 << 30
SHARE, DIFFERENCE = 0.01, 20


def mutate(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """One kind of damage."""
    size = len(data)
    kind = rng.choice(["flip", "zero", "cut", "end", "closed", "repeat", "header"])
    start = rng.randrange(size)
    length = min(size - start, int(2 ** rng.uniform(0, 13)))
    broken = bytearray(data)
    if kind == "flip":
        for _ in range(rng.choice([1, 1, 2, 8, 64])):
            broken[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == "zero":
        broken[start : start + length] = bytes(length)
    elif kind == "cut":
        del broken[start : start + length]
    elif kind == "end":
        del broken[start:]
    elif kind == "closed":
        broken[start:] = b"\xff\xd9"
    elif kind == "repeat":
        broken[start:start] = broken[start : start + length]
    else:
        for _ in range(rng.choice([1, 2, 4])):
            broken[rng.randrange(min(size, 200))] = rng.randrange(256)
    return kind, bytes(broken)


def child(connection) -> None:
    """Read the files that are asked for, and answer with (outcome, share of wrong pixels, reason)."""
    limit = _virtual_bytes() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while True:
        path, original = connection.recv()
        try:
            image = read_image(path).image
        except UnreadableImage as error:
            connection.send(("refused", 0.0, error.reason))
            continue
        except MemoryError:
            connection.send(("memory", 0.0, "MemoryError"))
            continue
        reference = cv2.imread(path, cv2.IMREAD_COLOR)
        reference = original if reference is None else reference[..., ::-1]
        if reference.shape != image.shape:
            connection.send(("wrong", 1.0, f"{image.shape}, expected {reference.shape}"))
            continue
        share = float((np.abs(image.astype(np.int16) - reference).max(2) > DIFFERENCE).mean())
        connection.send(("wrong" if share > SHARE else "read", share, ""))


def _virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class Reader:
    """A child process that is started anew when it crashes or hangs."""

    def __init__(self):
        self.start()

    def start(self) -> None:
        self.connection, other = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("fork").Process(target=child, args=(other,), daemon=True)
        self.process.start()
        other.close()

    def read(self, path: str, original: np.ndarray) -> tuple[str, float, str]:
        self.connection.send((path, original))
        if self.connection.poll(SECONDS):
            try:
                return self.connection.recv()
            except EOFError:
                outcome = "crashed"
        else:
            outcome = "hung"
        self.process.kill()
        self.process.join()
        code = self.process.exitcode
        self.start()
        return outcome, 1.0, f"exit code {code}"


def pictures(folder: str, count: int) -> list[np.ndarray]:
    listed = list_images(folder)
    places = np.unique(np.linspace(0, len(listed.paths) - 1, min(count, len(listed.paths))).astype(int))
    return [read_image(Path(listed.root, listed.paths[int(place)])).image for place in places]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the files that came out wrong")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    originals = pictures(args.folder, args.pictures)
    encoded = []
    for picture in originals:
        for name, options in FORMATS.items():
            file = io.BytesIO()
            Image.fromarray(picture).save(file, **options)
            whole = np.asarray(Image.open(file).convert("RGB"))
            encoded.append((name, file.getvalue(), whole))
    reader, outcomes, faults, began = Reader(), Counter(), [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "image"))
        for number in range(args.count):
            name, data, whole = rng.choice(encoded)
            kind, broken = mutate(data, rng)
            Path(path).write_bytes(broken)
            outcome, share, reason = reader.read(path, whole)
            outcomes[name, outcome] += 1
            if outcome not in ("refused", "read"):
                faults.append(
                    dict(number=number, format=name, damage=kind, outcome=outcome, share=share, reason=reason)
                )
                if args.keep:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    (args.keep / f"{number}.{name}").write_bytes(broken)
    for name in FORMATS:
        print(name, {outcome: count for (of, outcome), count in outcomes.items() if of == name})
    print(f"{args.count} files in {time.monotonic() - began:.0f} s; {len(faults)} faults")
    for fault in faults[:40]:
        print(fault)
    if args.json:
        args.json.write_text(json.dumps(dict(outcomes={" ".join(k): v for k, v in outcomes.items()}, faults=faults)))
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
