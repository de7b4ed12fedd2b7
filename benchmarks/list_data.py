"""The data of `benchmarks.lists`: its store, its preferences, its lists and what is measured."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml

from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.complete_journey import NO_FIELDS
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.data.split import Split
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.list_metrics import list_metrics, mean_over_lists, units_of_lists
from hyperrec_jax.evaluation.varied import Varied, varied_rows, with_variety
from hyperrec_jax.preference.grid import das_dennis

CUTOFF = 10
VARIETY = {"name": "variety", "kind": "variety", "of": "department", "column": "purchase"}


def store_of(
    tables: Path, work: Path, goals: tuple[str, ...], with_ids: bool, name: str = ""
) -> Store:
    """A store of the tables that `prepare complete-journey` leaves beside its own.

    Args:
      tables: Their folder.
      work: Where the store goes.
      goals: Its labels; `variety` is that of the departments of a list.
      with_ids: Whether the ids of product, type, maker and store are fields, too.
      name: Name of a store that keeps the fields of the tables; empty for one named by whether
        it has those ids.
    """
    description = yaml.safe_load((tables / "description.yaml").read_text("utf-8"))
    description["files"] = {
        split: str((tables / name).resolve()) for split, name in description["files"].items()
    }
    others = [field for field in description["categorical"] if field not in NO_FIELDS]
    if not name:
        description["categorical"] = [*NO_FIELDS * with_ids, *others]
    if "variety" in goals:
        del description["labels"]
        description["goals"] = [VARIETY if goal == "variety" else goal for goal in goals]
    else:
        description["labels"] = list(goals)
    path = work / f"{name or ('with_ids' if with_ids else 'fields')}.yaml"
    path.write_text(yaml.safe_dump(description), "utf-8")
    return prepare_store(csv_source(path), path.with_suffix(""), 0.1)


def grid_of(num_goals: int) -> np.ndarray:
    """The preferences: 25 evenly with both ends for two goals, 28 of the simplex for three."""
    if num_goals == 2:
        first = np.linspace(1, 0, 25)
        return np.stack([first, 1 - first], axis=1)
    return das_dennis(num_goals, 6)


def ends_and_between(grid: np.ndarray) -> np.ndarray:
    """Numbers of the preferences of which an opponent trains a model each: every second one."""
    if grid.shape[1] == 2:
        return np.arange(0, len(grid), 2)
    return np.flatnonzero((np.round(grid * 6).astype(int) % 2 == 0).all(axis=1))


@dataclasses.dataclass(frozen=True)
class Lists:
    """The lists of a split.

    Attributes:
      rows: The split.
      gains: `[goal, row]`.
      groups: `[row]`.
      varied: The goals of whole lists.
    """

    rows: Split
    gains: np.ndarray
    groups: np.ndarray
    varied: tuple[Varied, ...]

    @classmethod
    def of(cls, store: Store, name: str) -> "Lists":
        rows = store.split(name)
        gains = rows.slice(0, len(rows))["labels"].T.astype(np.float64)
        return cls(rows, gains, rows.groups(0, len(rows)), varied_rows(store.schema, rows))

    def ndcg(self, scores: np.ndarray) -> np.ndarray:
        """NDCG of each list, of variety its coverage, `[preference, goal, list]`, from scores
        `[preference, row]`."""
        found = list_metrics(scores, self.gains, self.groups, CUTOFF, ("ndcg",))
        return with_variety(found, scores, self.groups, CUTOFF, self.varied).values["ndcg"]


def scalarised(ndcg: np.ndarray, grid: np.ndarray) -> float:
    """Mean over preferences of `sum_i r_i NDCG_i`."""
    return float((grid * mean_over_lists(ndcg)).sum(axis=1).mean())


def test_households(tables: Path) -> np.ndarray:
    """Ids of the households of the test lists."""
    table = pq.read_table(tables / "test.parquet", columns=["household_id"])
    return np.unique(table["household_id"].to_numpy())


def households(tables: Path, groups: np.ndarray) -> np.ndarray:
    """Household of each test list, in ascending order of the lists' ids."""
    path = tables / "test.parquet"
    table = pq.read_table(path, columns=["list_id", "household_id"])
    lists = table["list_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    if not np.array_equal(np.diff(lists) != 0, np.diff(groups) != 0):
        raise UserError(f"{path}: its lists are not those of the store; empty --work")
    return units_of_lists(groups, table["household_id"].to_numpy())
