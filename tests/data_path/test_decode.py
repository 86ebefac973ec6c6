import io
import os
import pickle
import struct
import sys
import tracemalloc
import warnings
import zlib

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo
from torch.utils.data import DataLoader, Dataset

from densessl.data import decode
from densessl.data.decode import Reading, UnreadableImage, open_image, read_image
from densessl.data.depth import DepthRange
from densessl.geometry import affine

T = Image.Transpose
# What a camera held in each way stores of an upright scene.
STORED = {2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE}
STORED |= {6: T.ROTATE_90, 7: T.TRANSVERSE, 8: T.ROTATE_270}


def store(upright: Image.Image, orientation: int) -> tuple[Image.Image, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return (upright.transpose(STORED[orientation]) if orientation in STORED else upright), exif


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def tiff(
    samples: np.ndarray | bytes, size: tuple[int, int], bits: tuple[int, ...], photometric: int, kind: int
) -> bytes:
    """An uncompressed TIFF of one strip, in the byte order of the samples; kind 1 is unsigned, 2 signed, 3 float."""
    big = isinstance(samples, np.ndarray) and samples.dtype.byteorder == ">"
    order, data = "><"[not big], samples if isinstance(samples, bytes) else samples.tobytes()
    tags = [(256, 1, size[0]), (257, 1, size[1]), (258, len(bits), bits[0]), (259, 1, 1), (262, 1, photometric)]
    strip = 8 + 2 + 12 * 10 + 4
    if len(bits) > 1:
        tags[2], data = (258, len(bits), strip), struct.pack(f"{order}{len(bits)}H", *bits) + data
        strip += 2 * len(bits)
    tags += [(273, 1, strip), (277, 1, len(bits)), (278, 1, size[1]), (279, 1, len(data)), (339, 1, kind)]
    entries = b""
    for tag, count, value in tags:
        long = tag in (273, 279) or (tag == 258 and count > 1)
        packed = struct.pack(order + ("I" if long else "H2x"), value)
        entries += struct.pack(f"{order}HHI", tag, 4 if long and tag != 258 else 3, count) + packed
    header = (b"MM" if big else b"II") + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", len(tags))
    return header + entries + bytes(4) + data


def png16(pixels: np.ndarray) -> bytes:
    """A 16-bit RGB PNG."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bomb(width: int, height: int) -> bytes:
    """A PNG of black, whose header declares its size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


@pytest.fixture
def file(tmp_path):
    """Writes bytes to a file."""

    def write(data: bytes, name: str = "image.jpg"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


# Geometry


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("denominator", [1, 2, 4, 8])
def test_map_of_scaled_and_turned_jpeg_agrees_with_the_pixels(file, orientation, denominator):
    """In an image that shows its own coordinate, every decoded pixel must show where the map says it lies."""
    width, height = 101, 77  # of the form 8k + 5: no denominator divides them
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    for axis, coordinate in enumerate((x, y)):
        stored, exif = store(Image.fromarray((2 * coordinate).astype(np.uint8)), orientation)
        encoded = open_image(file(encode(stored, "JPEG", quality=100, exif=exif)))
        assert encoded.source_size == (width, height)
        placed = encoded.decode(denominator)
        assert placed.source_size == (width, height)
        assert placed.to_source.shape == (2, 3) and placed.to_source.dtype == np.float64
        rows, columns = placed.image.shape[:2]
        assert (columns, rows) == (-(-width // denominator), -(-height // denominator))
        centres = np.stack(np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5), axis=-1)
        position = affine.apply(placed.to_source, centres)
        # A border pixel that reaches over the image's edge mixes in what the encoder put there.
        low, high = position - denominator / 2, position + denominator / 2
        inside = (low >= 0).all(-1) & (high <= (width, height)).all(-1)
        assert inside.sum() == (width // denominator) * (height // denominator)
        shown = placed.image[..., 0] / 2
        assert np.abs(shown - position[..., axis])[inside].max() <= 0.26  # half a grey level is 0.25 pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})],
    ids=["png", "webp", "tiff", "tiff_lzw"],
)
def test_other_formats_are_turned_upright_and_never_scaled(file, orientation, kind, options):
    pixels = noise(19, 11)
    stored, exif = store(Image.fromarray(pixels), orientation)
    placed = open_image(file(encode(stored, kind, exif=exif, **options))).decode(4)
    np.testing.assert_array_equal(placed.image, pixels)
    np.testing.assert_allclose(placed.to_source, affine.identity(), atol=1e-12)
    assert placed.source_size == (19, 11)


def test_a_jpeg_smaller_than_the_denominator_reports_the_scale_it_got(file):
    placed = open_image(file(encode(noise(64, 3), "JPEG"))).decode(8)
    assert placed.image.shape == (2, 32, 3)
    np.testing.assert_array_equal(placed.to_source, affine.scaled_decode(2))


def test_an_image_can_be_decoded_again_at_another_scale(file):
    encoded = open_image(file(encode(noise(32, 16), "JPEG")))
    assert encoded.decode(2).image.shape == (8, 16, 3)
    np.testing.assert_array_equal(encoded.decode().image, read_image(encoded.path).image)
    with pytest.raises(ValueError, match=r"denominator=3: expected one of \(1, 2, 4, 8\)"):
        encoded.decode(3)


def test_impossible_or_damaged_exif_means_upright(file):
    pixels = noise(16, 8)
    for exif in (b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", store(Image.fromarray(pixels), 9)[1].tobytes()):
        assert open_image(file(encode(pixels, "JPEG", exif=exif))).source_size == (16, 8)


# Colours


def test_jpeg_pixels_are_pillows(file):
    path = file(encode(noise(37, 23), "JPEG", quality=80))
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(path).image, np.asarray(image.convert("RGB")))


RGB = noise(7, 5)
GREY = RGB[..., 0]
GREY16 = GREY.astype(np.uint16) * 256 + RGB[..., 1]
RGB16 = RGB.astype(np.uint16) * 256 + RGB[..., ::-1]
ALPHA = np.dstack([RGB, GREY])
INDEX = Image.fromarray(GREY // 128)
INDEX.putpalette([10, 20, 30, 200, 100, 50])
TWO_COLOURS = np.array([[10, 20, 30], [200, 100, 50]], np.uint8)[GREY // 128]
# Two samples of 12 bits are three bytes; rows are padded to whole bytes.
BITS12 = b"".join((int("".join(f"{v >> 4:03x}" for v in row), 16) << 4).to_bytes(11, "big") for row in GREY16.tolist())

COLOURS = {
    "rgb_png": (encode(RGB, "PNG"), RGB),
    "rgb_bmp": (encode(RGB, "BMP"), RGB),
    "rgb_tiff": (encode(RGB, "TIFF"), RGB),
    "rgb_webp": (encode(RGB, "WEBP", lossless=True), RGB),
    "grey_png": (encode(GREY, "PNG"), GREY),
    "grey_bmp": (encode(GREY, "BMP"), GREY),
    "grey_alpha_png": (encode(Image.merge("LA", [Image.fromarray(GREY)] * 2), "PNG"), GREY),
    "grey_alpha_tiff": (encode(Image.merge("LA", [Image.fromarray(GREY)] * 2), "TIFF"), GREY),
    "rgba_png": (encode(ALPHA, "PNG"), RGB),
    "rgba_webp": (encode(ALPHA, "WEBP", lossless=True, exact=True), RGB),
    "palette_png": (encode(INDEX, "PNG"), TWO_COLOURS),
    "palette_transparent_colour_png": (encode(INDEX, "PNG", transparency=0), TWO_COLOURS),
    "palette_alpha_png": (encode(INDEX, "PNG", transparency=b"\x80\x00"), TWO_COLOURS),
    "one_bit_png": (encode(Image.fromarray(GREY >= 128), "PNG"), (GREY >= 128) * np.uint8(255)),
    "one_bit_tiff": (encode(Image.fromarray(GREY >= 128), "TIFF"), (GREY >= 128) * np.uint8(255)),
    "grey16_png": (encode(GREY16, "PNG"), GREY),
    "grey16_tiff": (tiff(GREY16, (7, 5), (16,), 1, 1), GREY),
    "grey16_big_endian_tiff": (tiff(GREY16.astype(">u2"), (7, 5), (16,), 1, 1), GREY),
    "grey16_white_is_zero_tiff": (tiff(65535 - GREY16, (7, 5), (16,), 0, 1), GREY),
    "grey12_tiff": (tiff(BITS12, (7, 5), (12,), 1, 1), GREY),
    "rgb16_png": (png16(RGB16), RGB),
    "rgb16_tiff": (tiff(RGB16, (7, 5), (16, 16, 16), 2, 1), RGB),
    "rgb16_big_endian_tiff": (tiff(RGB16.astype(">u2"), (7, 5), (16, 16, 16), 2, 1), RGB),
    "rgb_gif": (encode(INDEX, "GIF"), TWO_COLOURS),
    "rgb_ppm": (encode(RGB, "PPM"), RGB),
    "grey16_pgm": (b"P5 7 5 65535 " + GREY16.astype(">u2").tobytes(), GREY),
    "rgb_jp2": (encode(RGB, "JPEG2000", irreversible=False), RGB),
    "rgb_avif": (encode(RGB, "AVIF", quality=100, subsampling="4:4:4", codec="auto"), None),
    "first_page_tiff": (encode(RGB, "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))]), RGB),
    "first_frame_webp": (
        encode(RGB, "WEBP", save_all=True, append_images=[Image.new("RGB", (7, 5))], lossless=True),
        RGB,
    ),
}


@pytest.mark.parametrize("name", COLOURS)
def test_every_kind_of_file_becomes_rgb(file, name):
    data, expected = COLOURS[name]
    if expected is None:  # a codec that loses a little
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.abs(expected.astype(int) - RGB).max() < 12
    expected = np.repeat(expected[..., None], 3, axis=-1) if expected.ndim == 2 else expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(file(data)).image
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


def test_cmyk_jpeg_is_not_inverted(file):
    ramp = np.linspace(20, 235, 64).astype(np.uint8)
    pixels = np.stack([np.tile(ramp, (64, 1)), np.tile(ramp[:, None], 64), np.full((64, 64), 90, np.uint8)], axis=-1)
    path = file(encode(Image.fromarray(pixels).convert("CMYK"), "JPEG", quality=100))
    assert b"Adobe" in path.read_bytes()
    assert np.abs(read_image(path).image.astype(int) - pixels).max() <= 4


def test_the_first_image_of_an_mpo_and_data_after_the_end_are_no_damage(file):
    pixels = noise(24, 16)
    jpeg = encode(pixels, "JPEG", quality=90)
    expected = read_image(file(jpeg)).image
    mpo = encode(pixels, "MPO", quality=90, save_all=True, append_images=[Image.new("RGB", (24, 16))])
    assert mpo.count(b"\xff\xd9") > 1
    np.testing.assert_array_equal(open_image(file(mpo)).decode().image, expected)
    motion_photo = jpeg + b"\0\0\0\x18ftypmp42" + np.random.default_rng(0).bytes(100_000)
    np.testing.assert_array_equal(read_image(file(motion_photo)).image, expected)


# Depth


def grey_ramp(width: int = 64) -> np.ndarray:
    return np.tile(np.linspace(0, 1, width), (4, 1))


@pytest.mark.parametrize(
    ("samples", "kind"),
    [
        ((grey_ramp() * 4095).astype(np.uint16), 1),  # a camera of 12 bits
        ((grey_ramp() * 65535).astype(np.uint16), 1),
        (grey_ramp().astype(np.float32), 3),
        ((grey_ramp() * 255).astype(np.float32), 3),
        ((grey_ramp() * 3000 - 1000).astype(np.float32), 3),  # Hounsfield units
        ((grey_ramp() * 3000 - 1000).astype(np.int32), 2),
    ],
    ids=["12 of 16 bits", "16 bits", "float to 1", "float to 255", "float", "signed"],
)
def test_samples_are_stretched_from_the_range_that_they_fill(file, samples, kind):
    bits = samples.dtype.itemsize * 8
    image = read_image(file(tiff(samples, (64, 4), (bits,), 1, kind), "deep.tif")).image
    expected = np.repeat((grey_ramp() * 255)[..., None], 3, axis=-1)
    assert np.abs(image - expected).max() <= 1


def test_colours_of_12_bits_in_a_png_of_16_are_not_black(file):
    """Pillow alone keeps the upper eight bits of colours, of which four are zero."""
    colours = np.dstack([grey_ramp(), grey_ramp()[:, ::-1], grey_ramp() / 2])
    image = read_image(file(png16((colours * 4095).astype(np.uint16)))).image
    assert np.abs(image - colours * 255).max() <= 1


@pytest.mark.parametrize(
    ("dtype", "kind", "low", "high"), [(np.float32, 3, 0, 1), (np.float64, 3, -5, 300), (np.int16, 2, -1000, 2000)]
)
def test_colours_that_pillow_has_no_mode_for_are_stretched(file, dtype, kind, low, high):
    colours = np.dstack([grey_ramp(), grey_ramp()[:, ::-1], grey_ramp() / 2])
    samples = np.ascontiguousarray((low + colours * (high - low)).astype(dtype))
    bits = (dtype().itemsize * 8,) * 3
    opened = open_image(file(tiff(samples.tobytes(), (64, 4), bits, 2, kind), "colours.tif"))
    assert opened.source_size == (64, 4) and opened.samples().dtype == dtype
    assert opened.bits == bits[0]
    assert np.abs(opened.decode().image - colours * 255).max() <= 1
    with pytest.raises(UnreadableImage, match=r"more than the limit of 0\.0001 megapixels"):
        open_image(opened.path, Reading(megapixels=1e-4))


def test_a_range_for_all_files_overrides_their_own(file):
    path = file(tiff((grey_ramp() * 4095).astype(np.uint16), (64, 4), (16,), 1, 1))
    image = read_image(path, Reading(depth=DepthRange(1000, 3000))).image[..., 0]
    expected = np.clip((np.floor(grey_ramp() * 4095) - 1000) / 2000 * 255, 0, 255)
    assert np.abs(image - expected).max() <= 0.51


def test_what_is_no_number_is_black_and_a_file_of_nothing_else_is_refused(file):
    samples = grey_ramp().astype(np.float32)
    samples[0] = np.nan
    image = read_image(file(tiff(samples, (64, 4), (32,), 1, 3))).image
    assert (image[0] == 0).all() and image[1].max() == 255
    with pytest.raises(UnreadableImage, match="no sample is a number"):
        read_image(file(tiff(samples * np.float32("nan"), (64, 4), (32,), 1, 3)))


# Strictness

SCENE = np.kron(noise(12, 10), np.ones((8, 8, 1), np.uint8))[:75, :93]
DAMAGED = {
    "jpeg": encode(SCENE, "JPEG"),
    "progressive": encode(SCENE, "JPEG", progressive=True),
    "restarts": encode(SCENE, "JPEG", restart_marker_rows=1),
    "png": encode(SCENE, "PNG"),
    "interlaced_alpha_png": encode(np.dstack([SCENE, SCENE[..., 0]]), "PNG"),
    "webp": encode(SCENE, "WEBP"),
    "bmp": encode(SCENE, "BMP"),
    "tiff": encode(SCENE, "TIFF"),
    "tiff_deflate": encode(SCENE, "TIFF", compression="tiff_adobe_deflate"),
}


@pytest.mark.parametrize("lax", [False, True], ids=["", "load_truncated_images"])
@pytest.mark.parametrize("name", DAMAGED)
def test_a_truncated_file_raises_or_has_lost_nothing(file, monkeypatch, name, lax):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lax)
    data = DAMAGED[name]
    whole = read_image(file(data)).image
    cuts = [*range(1, 16), *np.linspace(32, len(data) - 1, 40).astype(int)]
    raised = 0
    for cut in cuts:
        path = file(data[: len(data) - cut], "cut.jpg")
        try:
            image = read_image(path).image
        except UnreadableImage as error:
            raised += 1
            assert str(path) in str(error) and error.path == str(path)
        else:
            np.testing.assert_array_equal(image, whole)
    assert raised >= 40
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lax


@pytest.mark.parametrize("denominator", [2, 8])
def test_a_truncated_jpeg_raises_at_reduced_scale(file, denominator):
    data = DAMAGED["jpeg"]
    with pytest.raises(UnreadableImage, match=r"image\.jpg: .*truncated"):
        open_image(file(data[: len(data) * 2 // 3])).decode(denominator)


def test_a_jpeg_whose_tail_is_zeros_raises(file):
    """An interrupted download into a preallocated file. Pillow alone takes it for a whole image."""
    data = encode(noise(64, 64), "JPEG", quality=100, subsampling=0)
    path = file(data[: len(data) // 2].ljust(len(data), b"\0"))
    Image.open(path).load()
    with pytest.raises(UnreadableImage, match=r"image\.jpg: truncated: Premature end"):
        read_image(path)


def test_what_is_no_image_raises(file, tmp_path):
    with pytest.raises(UnreadableImage, match=r"a\.jpg: the file is empty"):
        open_image(file(b"", "a.jpg"))
    with pytest.raises(UnreadableImage, match=r"b\.jpg: none of JPEG, PNG, .*begins with b'<!DOCTYPE html"):
        open_image(file(b"<!DOCTYPE html><title>404</title>", "b.jpg"))
    with pytest.raises(UnreadableImage, match=r"c\.jpg: No such file"):
        open_image(tmp_path / "c.jpg")
    with pytest.raises(UnreadableImage, match="Is a directory"):
        open_image(tmp_path)


def test_an_image_of_too_many_pixels_is_refused_by_its_header(file, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # Pillow's own limit, which is not asked
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"):
        path = file(encode(noise(30, 30), kind))
        assert read_image(path, Reading(megapixels=9e-4)).source_size == (30, 30)
        monkeypatch.setattr(ImageFile.ImageFile, "load", None)  # as a sign that it was not asked to decode
        with pytest.raises(UnreadableImage, match=r"30 x 30 pixels, more than the limit of 0.0008 megapixels"):
            open_image(path, Reading(megapixels=8e-4))
        monkeypatch.undo()


def test_a_picture_of_millions_of_pixels_in_a_small_file_takes_no_memory(file):
    tracemalloc.start()
    path = file(bomb(20_000, 20_000))
    tracemalloc.reset_peak()
    with pytest.raises(UnreadableImage, match="20000 x 20000 pixels"):
        open_image(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_damage_that_decoders_only_warn_of_is_refused(file):
    data = encode(SCENE, "JPEG", quality=92)
    half = len(data) // 2
    for broken in (data[:half] + b"\xff\xd9", data[:half] + bytes(256) + data[half + 256 :]):
        with pytest.raises(UnreadableImage, match="damaged: Corrupt JPEG data"):
            read_image(file(broken))


@pytest.mark.parametrize("profile", [b"\x01\x02abc", b"\0\0"])
def test_a_damaged_colour_profile_is_no_damage(file, profile):
    data = encode(SCENE, "JPEG", quality=92)
    payload = b"ICC_PROFILE\0" + profile
    segment = b"\xff\xe2" + (len(payload) + 2).to_bytes(2, "big") + payload
    with_profile = data[:2] + segment + data[2:]
    assert (read_image(file(with_profile)).image == read_image(file(data)).image).all()
    with pytest.raises(UnreadableImage, match="damaged: Corrupt JPEG data"):
        read_image(file(with_profile[: len(data) // 2] + b"\xff\xd9"))


def planes(kind: str) -> bytes:
    """A TIFF of 4 x 4 red pixels with one plane a colour."""
    size = 16 * np.dtype(kind).itemsize
    starts, after = [8 + number * size for number in range(3)], 8 + 3 * size
    pixels = np.full(16, np.iinfo(kind).max, kind).tobytes() + bytes(2 * size)
    lists = struct.pack("<3H3I3I", *[8 * np.dtype(kind).itemsize] * 3, *starts, *[size] * 3)
    entries = [(256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 3, after), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 3, after + 6), (277, 3, 1, 3), (278, 4, 1, 4), (279, 4, 3, after + 18), (284, 3, 1, 2)]
    table = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", after + len(lists)) + pixels + lists + table


def test_deep_colours_in_separate_planes_are_refused(file):
    """OpenCV returns other colours without a word."""
    assert (read_image(file(planes("<u1"), "8.tif")).image == (255, 0, 0)).all()
    with pytest.raises(UnreadableImage, match="in separate planes"):
        read_image(file(planes("<u2"), "16.tif"))


def test_a_png_is_refused_where_pixels_are_damaged_and_read_where_text_is(file):
    info = PngInfo()
    info.add_text("comment", "x" * 100)
    data = encode(SCENE, "PNG", pnginfo=info)
    whole = read_image(file(data)).image
    pixels, text = data.index(b"IDAT") + 40, data.index(b"tEXt") + 20
    for place, fine in ((pixels, False), (text, True), (data.index(b"IHDR") + 20, False)):
        broken = bytearray(data)
        broken[place] ^= 8
        if fine:
            np.testing.assert_array_equal(read_image(file(bytes(broken))).image, whole)
        else:
            with pytest.raises(UnreadableImage, match="checksum of a PNG chunk"):
                read_image(file(bytes(broken)))
    with pytest.raises(UnreadableImage, match="no IEND chunk"):
        read_image(file(data[:-12]))
    info.add_text("large", "y" * (100 << 20), zip=True)  # Pillow refuses this
    np.testing.assert_array_equal(read_image(file(encode(SCENE, "PNG", pnginfo=info))).image, whole)


def test_an_orientation_that_only_xmp_states_is_not_followed(file):
    """As by OpenCV, which MMDetection reads images with."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    assert read_image(file(encode(noise(16, 8), "JPEG", xmp=xmp))).source_size == (16, 8)


def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", "/dev/zero"):
        with pytest.raises(UnreadableImage, match="not a regular file"):
            open_image(path)


def test_overlapping_threads_are_strict_and_leave_pillow_as_it_was(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    filters = list(warnings.filters)
    first, second = decode._strict_pillow(), decode._strict_pillow()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    second.__exit__(None, None, None)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert warnings.filters == filters


class Files(Dataset):
    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return read_image(self.paths[index]).image.sum()


def test_the_error_crosses_processes(file):
    path = file(b"", "broken.jpg")
    with pytest.raises(UnreadableImage) as caught:
        read_image(path)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is UnreadableImage and str(copy) == str(caught.value) and copy.path == str(path)
    with pytest.raises(UnreadableImage, match=r"broken\.jpg: the file is empty"):
        list(DataLoader(Files([path]), num_workers=1))


def heic(pixels: np.ndarray, **options) -> bytes:
    data = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(data, quality=-1, **options)
    return data.getvalue()


def test_photos_of_phones_are_read_upright_once(file):
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    smooth = np.dstack([4 * x, 5 * y, 255 - 4 * x]).astype(np.uint8)
    image = read_image(file(heic(smooth), "a.heic")).image
    assert image.shape == smooth.shape and np.abs(image.astype(int) - smooth).mean() < 2
    stored, exif = store(Image.fromarray(smooth), 6)
    turned = read_image(file(heic(np.asarray(stored), exif=exif.tobytes()), "b.heic"))
    assert turned.source_size == (64, 48) and np.abs(turned.image.astype(int) - smooth).mean() < 2
    data = heic(smooth)
    with pytest.raises(UnreadableImage, match=r"c\.heic: "):
        read_image(file(data[: len(data) * 2 // 3], "c.heic"))


def test_without_its_package_a_heic_file_says_what_to_install(file, monkeypatch):
    path = file(heic(noise(64, 48)), "a.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadableImage, match=r"a HEIC file; to read it: pip install -e '\.\[heif\]'"):
        read_image(path)
