"""Order: quick tests first, those that need mmdet last. MMEngine's default scope does not outlive a test."""

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def own_scope():
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope="session")
def fault_room(tmp_path_factory):
    """A folder of everything that can be wrong about a file."""
    from tests.fault_room import make_room  # imports torch, which collection does without

    return make_room(tmp_path_factory.mktemp("faults"))


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("det") is not None)
