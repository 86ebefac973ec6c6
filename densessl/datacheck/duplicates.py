"""Groups of images that are the same file, or look the same."""

import itertools

import numpy as np

NEAR = 4  # bits of 64 in which the hashes of two images that look the same may differ
BANDS = NEAR + 1  # two hashes that differ in at most NEAR bits are equal in at least one of so many bands


def equal_groups(digests: np.ndarray) -> list[np.ndarray]:
    """Groups of two and more equal rows.

    Args:
        digests: (N, k) whole numbers.

    Returns:
        Ascending places of each group, the groups by their first place.
    """
    if not len(digests):
        return []
    _, inverse = np.unique(digests, axis=0, return_inverse=True)
    return _groups(inverse.reshape(-1))


def near_groups(hashes: np.ndarray, most: int = NEAR) -> list[np.ndarray]:
    """Groups of images whose hashes are within ``most`` bits of each other, or linked by others that are.

    Only hashes that agree in a band of their bits are compared, so that not all pairs are.

    Args:
        hashes: (N,) uint64.
        most: at most ``NEAR``.

    Returns:
        Ascending places of each group, the groups by their first place. Equal hashes count as near.
    """
    unique, inverse = np.unique(hashes, return_inverse=True)
    parent = np.arange(len(unique))

    def top(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    edges = np.linspace(0, 64, BANDS + 1).astype(int)
    for low, high in itertools.pairwise(edges):
        band = (unique >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order])) + 1
        for bucket in np.split(order, starts):
            for place in range(len(bucket) - 1):
                rest = bucket[place + 1 :]
                apart = np.bitwise_count(unique[rest] ^ unique[bucket[place]])
                for other in rest[apart <= most]:
                    a, b = top(bucket[place]), top(other)
                    parent[max(a, b)] = min(a, b)
    tops = np.array([top(place) for place in range(len(unique))], np.int64)
    return _groups(tops[inverse.reshape(-1)]) if len(unique) else []


def _groups(keys: np.ndarray) -> list[np.ndarray]:
    """Ascending places of equal keys, where there are several, the groups by their first place."""
    order = np.argsort(keys, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
    return sorted((part for part in parts if len(part) > 1), key=lambda part: part[0])
