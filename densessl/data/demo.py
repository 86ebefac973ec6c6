"""Photos to try things on without any data: those the scikit-image package carries. Nothing is downloaded."""

from importlib.util import find_spec
from pathlib import Path

from PIL import Image

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "motorcycle_right.png")


def photo_folder() -> Path:
    """Folder of scikit-image's photos.

    Raises:
        ModuleNotFoundError: naming what to install.
    """
    spec = find_spec("skimage")
    if spec is None:
        raise ModuleNotFoundError("the built-in photos come with scikit-image: pip install -e '.[demo]'")
    return Path(spec.submodule_search_locations[0], "data")


def write_demo_photos(folder: Path, tile: float = 0.6) -> Path:
    """Write the photos and four overlapping tiles of each as JPEG, so that there is a batch of different images.

    Args:
        folder: made if missing; photos already there are kept.
        tile: side of a tile as a share of the photo's.

    Returns:
        ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOS:
        with Image.open(photo_folder() / name) as opened:
            photo = opened.convert("RGB")
        width, height = photo.size
        w, h = round(tile * width), round(tile * height)
        boxes = [(0, 0, width, height)] + [(x, y, x + w, y + h) for x in (0, width - w) for y in (0, height - h)]
        for number, box in enumerate(boxes):
            out = folder / f"{Path(name).stem}_{number}.jpg"
            if not out.exists():
                photo.crop(box).save(out, quality=95)
    return folder
