"""Whatever a config holds, a check ends with lines and not with a traceback."""

import copy
from typing import Any

import pytest
from mmengine.config import Config

from densessl.settings import check_config
from tests.settings.run_of import run_of

VALUES = [3, -1.5, "x", None, True, [], {}, [3], [None], [[]], {"type": "X"}, {"type": None}, {"a": 1}, float("nan")]


def entries(value: Any, path: tuple = ()) -> list[tuple]:
    """Key paths of all that is in a config."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [each for key, entry in inner for each in entries(entry, (*path, key))]


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", ["small/ccop_r18.py", "sim_vit_tiny.py", "small/pixpro_r18_fpn.py"])
def test_any_value_at_any_place_is_told_and_not_raised(name):
    whole = plain(run_of(name).to_dict())
    for number, path in enumerate(entries(whole)[::9]):  # of more, a check would take too long
        changed = copy.deepcopy(whole)
        node = changed
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = VALUES[number % len(VALUES)]
        assert isinstance(check_config(Config(changed)), list)
