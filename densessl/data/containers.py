"""Checks of image files that decoders leave out: checksums, declared lengths, and the end of the file.

Decoders fill in what a file has lost. Each check raises ValueError for a file that has lost pixels; metadata (text,
colour profiles, comments) may be damaged, because no pixel depends on it.
"""

import zlib
from collections.abc import Iterator

from PIL import Image, TiffImagePlugin

_PNG = b"\x89PNG\r\n\x1a\n"
# What the pixels depend on, and the orientation. Everything else is left out before Pillow sees the file: it refuses
# long or broken texts and profiles.
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_PNG_KEPT = (*_PNG_PIXELS, b"eXIf", b"IEND")
_RIFF_HEADER = 8
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES = 273, 279, 324, 325
_COMPRESSION, _RAW = 259, 1


def checked_png(data: bytes) -> bytes:
    """The same PNG with the chunks that pixels and orientation depend on.

    Raises:
        ValueError: a checksum of the pixels is wrong, or the end is missing.
    """
    kept, ended = [_PNG], False
    for name, start, end, sound in _png_chunks(data):
        if name in _PNG_PIXELS and not sound:
            raise ValueError(f"damaged: the checksum of a PNG chunk {name.decode()} is wrong")
        if name in _PNG_KEPT and sound:
            kept.append(data[start:end])
        elif not name.isalpha() or (name[:1].isupper() and name not in _PNG_KEPT):
            raise ValueError(f"damaged: the PNG chunk {name!r} is unknown, and not marked as optional")
        if name == b"IEND":
            ended = True
            break
    if not ended:
        raise ValueError("truncated: the PNG has no IEND chunk")
    if not any(chunk[4:8] == b"IDAT" for chunk in kept):
        raise ValueError("damaged: the PNG has no pixels (no IDAT chunk)")
    return b"".join(kept)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int, bool]]:
    """Name, start, end and whether the checksum is right, of each chunk that is there as a whole."""
    position = len(_PNG)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 12 + length
        if end > len(data):
            return
        name = data[position + 4 : position + 8]
        stored = int.from_bytes(data[end - 4 : end], "big")
        yield name, position, end, zlib.crc32(memoryview(data)[position + 4 : end - 4]) == stored
        position = end


def check_webp(data: bytes) -> None:
    """Raises ValueError: the file is shorter than its header says."""
    declared = int.from_bytes(data[4:8], "little") + _RIFF_HEADER
    if declared > len(data):
        raise ValueError(f"truncated: the WebP has {len(data):,} of {declared:,} bytes")


def check_bmp(data: bytes) -> None:
    """Raises ValueError: the file is shorter than its pixels, where they are not compressed."""
    if int.from_bytes(data[14:18], "little") < 40 or int.from_bytes(data[30:34], "little") not in (0, 3):
        return  # an old header, which Pillow reads strictly, or a compressed file
    start, width, height, bits = (
        int.from_bytes(data[at : at + size], "little", signed=True) for at, size in ((10, 4), (18, 4), (22, 4), (28, 2))
    )
    needed = start + (abs(width) * bits + 31) // 32 * 4 * abs(height)
    if needed > len(data):
        raise ValueError(f"truncated: the BMP has {len(data):,} of {needed:,} bytes")


def check_tiff(image: TiffImagePlugin.TiffImageFile, data: bytes) -> None:
    """Raises ValueError: a strip or tile of the first page lies outside the file, is empty, or is shorter than its
    pixels."""
    tags = image.tag_v2
    tiled = _TILES in tags
    offsets = tags.get(_TILES if tiled else _STRIPS, ())
    lengths = tags.get(_TILE_BYTES if tiled else _STRIP_BYTES)
    if lengths is None:  # old writers leave them out where there is one strip
        return
    bits, samples = tiff_bits(image), tags.get(277, 1)
    if len(bits) > 1 and len(bits) != samples:
        raise ValueError(f"damaged: the TIFF has {samples} samples a pixel, and the bits of {len(bits)}")
    kind = "tile" if tiled else "strip"
    if len(offsets) != len(lengths):
        raise ValueError(f"damaged: the TIFF has {len(offsets)} {kind}s and {len(lengths)} lengths")
    raw = None if tiled or tags.get(_COMPRESSION, _RAW) != _RAW else _bytes_by_strip(image, len(offsets))
    for number, (offset, length) in enumerate(zip(offsets, lengths)):
        needed = raw[number] if raw else length  # some writers state more than there is
        if length == 0 or length < needed or offset + needed > len(data):
            raise ValueError(
                f"truncated: {kind} {number} of the TIFF, {length:,} bytes, needs {max(needed, 1):,} from byte "
                f"{offset:,} on, in a file of {len(data):,}"
            )


def _bytes_by_strip(image: TiffImagePlugin.TiffImageFile, strips: int) -> list[int]:
    """Bytes of the pixels of each uncompressed strip."""
    tags = image.tag_v2
    samples, planar = tags.get(277, 1), tags.get(284, 1) == 2
    bits = tags.get(258, (1,))
    width, height = tags[256], tags[257]  # as stored: Pillow turns ``image.size``
    row = (width * (bits[0] if planar else sum(bits if len(bits) == samples else bits * samples)) + 7) // 8
    rows = min(tags.get(278, height), height)
    each = -(-height // rows)  # strips of a plane
    if strips < each * (samples if planar else 1):
        raise ValueError(f"damaged: the TIFF has {strips} strips, needs {each}")
    return [row * min(rows, height - rows * (number % each)) for number in range(strips)]


def is_png(data: bytes) -> bool:
    return data.startswith(_PNG)


def png_bits(data: bytes) -> int:
    """Bits of a sample, as a PNG's header says."""
    return data[24] if len(data) > 24 else 8


def is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def is_jpeg(data: bytes) -> bool:
    return data.startswith(b"\xff\xd8\xff")


def tiff_bits(image: Image.Image) -> tuple[int, ...]:
    """Bits of each sample, as a TIFF says; empty for other formats."""
    bits = getattr(image, "tag_v2", {}).get(258, ())
    return tuple(bits) if isinstance(bits, tuple | list) else (bits,)
