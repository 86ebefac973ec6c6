"""Groups of duplicates are those that comparing all pairs finds."""

import itertools

import networkx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from densessl.datacheck.duplicates import NEAR, equal_groups, near_groups


def components(hashes: list[int]) -> list[list[int]]:
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(hashes)))
    graph.add_edges_from(
        (i, j) for i, j in itertools.combinations(range(len(hashes)), 2) if (hashes[i] ^ hashes[j]).bit_count() <= NEAR
    )
    return sorted(sorted(each) for each in networkx.connected_components(graph) if len(each) > 1)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_near_groups(data):
    hashes = data.draw(st.lists(st.integers(0, 2**64 - 1), max_size=6))
    for _ in range(data.draw(st.integers(0, 8)) if hashes else 0):
        flips = data.draw(st.sets(st.integers(0, 63), max_size=NEAR + 1))
        hashes.append(data.draw(st.sampled_from(hashes)) ^ sum(1 << bit for bit in flips))
    groups = near_groups(np.array(hashes, np.uint64))
    assert [group.tolist() for group in groups] == components(hashes)


def test_equal_groups():
    rows = np.array([[1, 2], [3, 4], [1, 3], [3, 4], [1, 2], [1, 2]], np.uint64)
    assert [group.tolist() for group in equal_groups(rows)] == [[0, 4, 5], [1, 3]]
    assert equal_groups(np.zeros((0, 2), np.uint64)) == [] == near_groups(np.zeros(0, np.uint64))
