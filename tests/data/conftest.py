"""Small data sets in every form that the sources read."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hyperrec_jax.data import split as split_module
from hyperrec_jax.data import store_writer
from hyperrec_jax.data.schema import CategoricalField, NumericalField, Schema
from hyperrec_jax.data.store import Store
from hyperrec_jax.data.store_writer import StoreWriter

USER_IDS, ITEM_IDS = (*range(2, 9), 32, 33), (19, 34, 35, 36, 40, 41, 42)


def _table(rng: np.random.Generator, searches: np.ndarray, columns: int, ids: tuple[int, ...]):
    table = {1: searches}
    for column in range(2, columns + 1):
        numbers = rng.random(len(searches)).round(6)
        table[column] = rng.integers(0, 6, len(searches)) if column in ids else numbers
    return pd.DataFrame(table)


@pytest.fixture
def raw_tables() -> dict[str, pd.DataFrame]:
    """The four tables of a raw AliExpress release, columns numbered from 1."""
    rng = np.random.default_rng(0)
    tables = {}
    for split, searches, first in (("train", 60, 0), ("test", 20, 1000)):
        ids = first + rng.permutation(searches)
        items = _table(
            rng, np.repeat(rng.permutation(ids), rng.integers(1, 8, searches)), 49, ITEM_IDS
        )
        items[49] = rng.choice(3, len(items), p=(0.6, 0.3, 0.1))
        tables[f"user_{split}"] = _table(rng, ids, 33, USER_IDS)
        tables[f"item_{split}"] = items
    return tables


@pytest.fixture
def write_raw(raw_tables: dict[str, pd.DataFrame]) -> Callable[..., Path]:
    """Writes the release of country us as `csv`, `zip` (four zips) or `zips` (zips in a zip)."""

    def write(folder: Path, form: str = "csv") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in raw_tables.items():
            text = table.to_csv(header=False, index=False)
            if form == "csv":
                (folder / f"us_{name}.csv").write_text(text)
            else:
                with zipfile.ZipFile(folder / f"us_{name}.zip", "w", zipfile.ZIP_DEFLATED) as inner:
                    inner.writestr(f"us_{name}.csv", text)
        if form == "zips":
            with zipfile.ZipFile(folder / "aliexpress_US_datasets.zip", "w") as outer:
                for inner_path in sorted(folder.glob("us_*.zip")):
                    outer.write(inner_path, f"release/{inner_path.name}")
                    inner_path.unlink()
        return folder

    return write


@pytest.fixture
def write_processed(raw_tables: dict[str, pd.DataFrame]) -> Callable[[Path], Path]:
    """Writes the processed form, made by pandas as the multi-task libraries make it."""

    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for split in ("train", "test"):
            user = raw_tables[f"user_{split}"].rename(
                columns=lambda i: f"user_{i}" if i > 1 else "search_id"
            )
            item = raw_tables[f"item_{split}"].rename(
                columns=lambda i: f"item_{i}" if i > 1 else "search_id"
            )
            data = item.merge(user, on="search_id", how="inner")
            ids = [f"user_{i}" for i in USER_IDS] + [f"item_{i}" for i in ITEM_IDS]
            numbers = [f"user_{i}" for i in range(9, 32)]
            numbers += [f"item_{i}" for i in range(2, 49) if i not in ITEM_IDS]
            result = data[["search_id", *ids, *numbers]]
            result.columns = [
                "search_id",
                *(f"categorical_{i + 1}" for i in range(16)),
                *(f"numerical_{i + 1}" for i in range(63)),
            ]
            result = result.assign(
                click=(data.item_49 >= 1) * 1, conversion=(data.item_49 == 2) * 1
            )
            result.to_csv(folder / f"{split}.csv", index=False)
        return folder

    return write


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> int:
    """Record batches of 8 rows, so that small stores have many."""
    for module in (split_module, store_writer):
        monkeypatch.setattr(module, "ROWS_PER_RECORD_BATCH", 8)
    return 8


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., tuple[Store, dict[str, np.ndarray]]]:
    """Writes a store whose training split has the given number of rows; returns both."""

    def make(rows: int, size: int = 10, numbers: int = 3, group: bool = True, name: str = "store"):
        import pyarrow as pa

        rng = np.random.default_rng(rows)
        schema = Schema(
            source="test",
            categorical=(CategoricalField("a", size), CategoricalField("b", 3)),
            numerical=tuple(NumericalField(f"n{i}") for i in range(numbers)),
            tasks=("click", "buy"),
            group="search" if group else None,
        )
        columns = {
            "categorical": np.stack([np.arange(rows) % size, np.arange(rows) % 3], axis=1),
            "numerical": rng.normal(size=(rows, numbers)).astype(np.float32),
            "labels": rng.integers(0, 2, (rows, 2)),
        }
        if group:
            columns["group"] = np.arange(rows) // 3
        vocabulary = [pa.array(range(size - 1)), pa.array(["x", "y"])]
        with StoreWriter(tmp_path / name, schema, vocabulary) as writer:
            for part in np.array_split(np.arange(rows), 4):
                writer.append("train", {key: value[part] for key, value in columns.items()})
            writer.append("test", {key: value[:1] for key, value in columns.items()})
        return Store.open(tmp_path / name), columns

    return make
