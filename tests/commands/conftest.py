"""The data sets of `tests/data`, for the commands that prepare them."""

from tests.data.conftest import raw_tables, write_raw  # noqa: F401 - fixtures
