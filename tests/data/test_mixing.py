import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hyperrec_jax.data.mixing import mix64, permute


def test_mix64_is_splitmix64():
    # First outputs of the reference implementation seeded with 0.
    gamma = np.uint64(0x9E3779B97F4A7C15)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    np.testing.assert_array_equal(mix64(gamma * np.arange(3, dtype=np.uint64)), expected)


@given(size=st.integers(1, 700), key=st.integers(0, 2**64 - 1))
def test_permute_is_a_bijection(size, key):
    result = permute(np.arange(size), size, np.uint64(key))
    np.testing.assert_array_equal(np.sort(result), np.arange(size))


@given(
    st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 2**64 - 1)), min_size=1, max_size=20)
)
def test_permute_takes_a_size_and_a_key_per_index(pairs):
    sizes, keys = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs], np.uint64)
    result = permute(sizes - 1, sizes, keys)
    assert np.all((result >= 0) & (result < sizes))


def test_permutations_of_different_keys_are_uniform():
    # Where index 3 of 10 goes under 20,000 keys.
    landed = permute(np.full(20_000, 3), 10, mix64(np.arange(20_000)))
    assert stats.chisquare(np.bincount(landed, minlength=10)).pvalue > 1e-4
