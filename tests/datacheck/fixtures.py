"""A folder in which everything is known that a check should find."""

import io
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

VOID = {"meta", "img", "br"}  # elements without an end tag


def picture(seed: int, width: int = 96, height: int = 80) -> Image.Image:
    """A smooth picture of few colours, unlike those of other seeds."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int = 95) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def write_folder(root: Path) -> Path:
    """5 JPEGs of 96 x 80; 1 of 320 x 200; a copy; a re-encoding; a 12-bit PNG; a grey BMP; 2 bad files; 3 others."""
    (root / "deeper").mkdir(parents=True)
    for number in range(5):
        (root / f"{number}.jpg").write_bytes(jpeg(picture(number)))
    (root / "large.JPG").write_bytes(jpeg(picture(10, 320, 200)))
    (root / "deeper/again.jpg").write_bytes((root / "0.jpg").read_bytes())
    (root / "deeper/poorer.jpg").write_bytes(jpeg(picture(1), 60))
    steps = np.random.default_rng(5).integers(0, 4096, (8, 8)).repeat(8, 0).repeat(8, 1)
    steps[0, 0], steps[0, 1] = 3, 4095
    Image.fromarray(steps.astype(np.uint16)).save(root / "deep.png")
    picture(11, 64, 64).convert("L").save(root / "grey.bmp")
    (root / "cut.jpg").write_bytes((root / "2.jpg").read_bytes()[:900])
    (root / "empty.png").write_bytes(b"")
    (root / "notes.txt").write_text("no image")
    (root / "raw.CR2").write_bytes(b"1")
    (root / "deeper/more.cr2").write_bytes(b"1")
    return root


class Page(HTMLParser):
    """A page whose elements are nested as they should be, with its pictures, its words and its links."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
        self.links += [value for name, value in attrs if name in ("href", "src") and not value.startswith("data:")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
