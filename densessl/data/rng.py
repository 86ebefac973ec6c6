"""Random generators keyed by what their numbers are for.

Every draw of the data path comes from a generator keyed by (seed, epoch, index, view, purpose). Worker count, world
size, prefetching, resuming and replaying a single sample therefore do not change any draw.
"""

import zlib

import numpy as np

_LIMIT = 2**64


def keyed_rng(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """The random generator for one purpose at one position.

    Philox is a function of (key, counter). Seed and purpose form the key, and the position forms the upper three words
    of the counter, so streams of different positions never overlap (each may yield 2**64 blocks). Only the purpose's
    name is hashed.

    Args:
        seed: seed of the run.
        purpose: what the numbers are for, such as ``"crop"``.
        position: up to three non-negative integers, such as (epoch, index, view).
    """
    words = np.zeros(4, np.uint64)
    words[1 : 1 + len(position)] = position
    key = np.array([seed % _LIMIT, zlib.crc32(purpose.encode())], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=words))
