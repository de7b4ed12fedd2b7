"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder of real data; tests that read it are skipped where it is missing."""
    folder = Path(os.environ.get("HYPERREC_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set HYPERREC_TEST_DATA to run this test")
    return folder
