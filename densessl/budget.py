"""How many images of a data set may be unreadable."""

import re

from densessl.errors import SettingError

DEFAULT = "0.1%"


def allowed(text: str | int, images: int) -> int:
    """Return how many images of a data set may be unreadable.

    Args:
        text: "0.1%" (rounded down, at least one), a number of images, or "none".
        images: of the data set.

    Raises:
        SettingError: it is something else.
    """
    words = str(text).strip().lower()
    if words == "none":
        return 0
    if re.fullmatch(r"\d+", words) and not isinstance(text, bool):
        return int(words)
    share = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", words)
    if share and float(share[1]) <= 100:
        return max(1, int(images * float(share[1]) / 100 + 1e-9)) if float(share[1]) else 0
    raise SettingError(f"--bad-images: found {text!r}, expected a share like {DEFAULT}, a number of images, or none")
