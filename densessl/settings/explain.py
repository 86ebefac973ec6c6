"""Explains every setting of a run in words."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from densessl.constraints import Range
from densessl.settings.annotations import alternatives, marker
from densessl.settings.check import walk
from densessl.settings.origins import origin_of
from densessl.settings.walk import Setting

DEFAULT, VARIABLE = "default", "a variable of the config, which nothing reads"
WIDEST = 60  # most characters shown of a value


def explain(cfg: Config, origins: Mapping[str, str] | None = None) -> str:
    """List the settings of a run, one per line: ``key path = value   (origin)   meaning``.

    Defaults that the config leaves out are listed too. The meanings come from the docstrings of the classes that take
    the settings.

    Args:
        cfg: the whole config.
        origins: where entries come from, such as "command line", "linear rule" or "configs/x.py:12", by key path. The
            origin of an entry holds for everything inside it. See :func:`densessl.settings.origins.origins_of`.
    """
    origins = origins or {}
    found = walk(cfg)
    rows = [_row(setting, origins) for setting in found.settings]
    read = {setting.path.partition(".")[0] for setting in found.settings}
    rows += [
        (f"{key} = {shown(value)}", origin_of(key, origins) or "", VARIABLE)
        for key, value in cfg.to_dict().items()
        if key not in read
    ]
    return "\n".join(f"{left}   ({origin})   {meaning}".rstrip() for left, origin, meaning in rows)


def _row(setting: Setting, origins: Mapping[str, str]) -> tuple[str, str, str]:
    origin = DEFAULT if setting.is_default else origin_of(setting.path, origins) or "config"
    bounds = [bound for _, markers in alternatives(setting.argument.annotation) if (bound := marker(markers, Range))]
    limits = f" [{bounds[0]}]" if bounds else ""
    return f"{setting.path} = {shown(setting.value)}", origin, f"{setting.argument.meaning}{limits}"


def shown(value: Any) -> str:
    """A value on one line, shortened."""
    text = repr(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
