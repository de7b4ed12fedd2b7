"""Ids without a vocabulary: the hash of a value's text is its id ("the hashing trick").

No value is unknown then, also none that comes first when a model is served; the price is that
values that meet in a bucket share their embedding (Weinberger et al. 2009, arXiv 0902.2206). The
hash is BLAKE2b with a digest of 8 bytes (RFC 7693) over the UTF-8 text of `data.text`, read as a
little-endian number, so that every program can compute it, and it never changes.
"""

import hashlib

import numpy as np
import pyarrow as pa


def hash_of(text: str) -> int:
    """The hash of a text, in `[0, 2**64)`."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def hashes(texts: pa.Array) -> np.ndarray:
    """The hashes of texts without nulls: uint64 `[text]`; each distinct one is hashed once."""
    encoded = texts.dictionary_encode()
    distinct = np.array([hash_of(text) for text in encoded.dictionary.to_pylist()], np.uint64)
    return distinct[encoded.indices.to_numpy()]


def bucket_of(text: str, buckets: int) -> int:
    """The id of a text, in `[1, buckets]`; id 0 stays that of unknown values, which none is."""
    return 1 + hash_of(text) % buckets


class BucketEncoder:
    """Texts of a field without a vocabulary -> ids.

    Args:
      buckets: Number of ids that a text may get.
    """

    def __init__(self, buckets: int):
        self._buckets = np.uint64(buckets)

    def __call__(self, texts: pa.Array) -> np.ndarray:
        """Ids as those of `bucket_of`: int64 `[text]`."""
        return (hashes(texts) % self._buckets).astype(np.int64) + 1
