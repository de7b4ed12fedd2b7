"""Counter-based randomness: hashes and permutations that need no state and no memory.

Both are pure integer functions, so that a run can be resumed at any step, on any number of
processes and under any version of NumPy, and still see the same rows.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

UInt64 = NDArray[np.uint64]

_FEISTEL_ROUNDS = 6


def mix64(values: ArrayLike) -> UInt64:
    """SplitMix64's finaliser: a bijection of 64-bit integers that looks random.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    x = np.atleast_1d(np.asarray(values)).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(index: ArrayLike, size: ArrayLike, key: ArrayLike) -> NDArray[np.int64]:
    """Where a keyed pseudorandom permutation of `range(size)` sends each index.

    A Feistel network over the smallest power of two that holds `size`, walked along its cycle until
    it falls below `size` again (Black and Rogaway, "Ciphers with arbitrary finite domains",
    CT-RSA 2002): constant memory whatever the size, unlike a shuffled index.

    Args:
      index: Integers in `[0, size)`, any shape.
      size: Number of elements of the permutation; may differ from one index to the next.
      key: The permutation; may differ from one index to the next.

    Returns:
      Integers in `[0, size)`, shaped like `index`.
    """
    index = np.atleast_1d(np.asarray(index)).astype(np.uint64)
    size = np.broadcast_to(np.asarray(size).astype(np.uint64), index.shape)
    key = np.broadcast_to(np.asarray(key).astype(np.uint64), index.shape)
    bits = max(2, int(size.max(initial=1) - 1).bit_length())
    result = _feistel(index, key, bits)
    outside = np.nonzero(result >= size)
    while outside[0].size:
        walked = _feistel(result[outside], key[outside], bits)
        result[outside] = walked
        still = walked >= size[outside]
        outside = tuple(axis[still] for axis in outside)
    return result.astype(np.int64)


def _feistel(index: UInt64, key: UInt64, bits: int) -> UInt64:
    low_bits = np.uint64(bits // 2)
    low_mask = (np.uint64(1) << low_bits) - np.uint64(1)
    high_mask = (np.uint64(1) << np.uint64(bits - bits // 2)) - np.uint64(1)
    low, high = index & low_mask, index >> low_bits
    for round_number in range(_FEISTEL_ROUNDS):
        round_key = mix64(key + np.uint64(round_number))
        if round_number % 2 == 0:
            high = high ^ (mix64(low ^ round_key) & high_mask)
        else:
            low = low ^ (mix64(high ^ round_key) & low_mask)
    return (high << low_bits) | low
