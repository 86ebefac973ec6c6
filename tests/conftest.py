"""Order: quick tests first, those that need mmdet last. MMEngine's default scope does not outlive a test."""

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def own_scope():
    yield
    DefaultScope._instance_dict.clear()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("det") is not None)
