"""Order: quick tests first, those that need mmdet last."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("det") is not None)
