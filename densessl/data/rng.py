"""Random numbers as a function of what they are for.

Every draw of the data path comes from a generator keyed by (seed, epoch, index, view, purpose). Worker count, world
size, prefetching, resuming and replaying a single sample therefore change nothing.
"""

import zlib

import numpy as np

_LIMIT = 2**64


def keyed_rng(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """A generator for one purpose at one position.

    Philox is a function of (key, counter): seed and purpose form the key, the position the upper three words of the
    counter, so streams of different positions never overlap (each may yield 2**64 blocks) and nothing is hashed but
    the purpose's name.

    Args:
        seed: seed of the run.
        purpose: what the numbers are for, such as ``"crop"``.
        position: up to three non-negative integers, such as (epoch, index, view).
    """
    words = np.zeros(4, np.uint64)
    words[1 : 1 + len(position)] = position
    key = np.array([seed % _LIMIT, zlib.crc32(purpose.encode())], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=words))
