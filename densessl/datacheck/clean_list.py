"""Write the good images of a data set as a list to train on."""

import os
from pathlib import Path

import numpy as np

from densessl.datacheck.scan import Images
from densessl.files import written_whole


def write_clean(file: str | Path, images: Images, keep: np.ndarray, which: int) -> tuple[int, int]:
    """Write the paths of images, one a line. ``densessl train --data-root FILE`` takes the list.

    Paths are relative where all images lie beside the list or below it, so that keys of regions stay what they are;
    otherwise they are absolute.

    Args:
        keep: (images,) bool by number of the image.
        which: the data set to write.

    Returns:
        The number of images written, and of those left out because a line of text cannot hold their path.
    """
    root, paths = images.roots[which], images.paths[which]
    start = sum(map(len, images.paths[:which]))
    folder = os.path.dirname(os.path.abspath(file))
    beside = os.path.relpath(root, folder)
    inside = not beside.startswith("..")
    written = odd = 0
    with written_whole(file) as temporary, open(temporary, "wb") as lines:
        for index in range(len(paths)):
            if not keep[start + index]:
                continue
            path = paths[index]
            path = os.path.normpath(os.path.join(beside, path)) if inside else os.path.join(root, path)
            path = os.path.join(folder, path) if path.startswith("#") or path != path.lstrip() else path
            if path != path.strip() or "\n" in path or "\r" in path:
                odd += 1
                continue
            lines.write(path.encode("utf-8", "surrogateescape") + b"\n")
            written += 1
    return written, odd
