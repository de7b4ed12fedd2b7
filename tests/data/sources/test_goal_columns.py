import numpy as np
import pandas as pd
import pytest
import yaml

import hyperrec_jax
from hyperrec_jax.commands.prepare import summary
from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.goals import Statistics

ROWS = 400
GOALS = [
    "click",
    {"name": "buy", "column": "purchase", "where": "click", "sampling_rate": 0.1},
    {"name": "watch", "kind": "value"},
    {"name": "rating", "kind": "regression", "target": "identity", "error": "huber"},
    {"name": "visits", "kind": "count"},
]


def log(rows=ROWS):
    rng = np.random.default_rng(0)
    click = rng.integers(0, 2, rows)
    return pd.DataFrame(
        {
            "item": rng.integers(0, 9, rows),
            "click": np.where(click, "yes", "no"),
            "purchase": rng.integers(0, 2, rows),
            "watch": np.where(rng.random(rows) < 0.5, 0, rng.lognormal(2, 1, rows)),
            "rating": np.where(rng.random(rows) < 0.3, np.nan, rng.normal(3, 1, rows)),
            "visits": rng.poisson(2, rows),
            "shown": rng.integers(1, 5, rows),
        }
    )


def describe(**changes):
    return {
        "files": {"train": "log.csv"},
        "categorical": ["item"],
        "goals": GOALS,
        "weight": "shown",
        **changes,
    }


def prepared(folder, description, table, suffix=".csv"):
    if suffix == ".csv":
        table.to_csv(folder / "log.csv", index=False)
    else:
        table.to_parquet(folder / "log.parquet")
        description = description | {"files": {"train": "log.parquet"}}
    (folder / "shop.yaml").write_text(yaml.safe_dump(description))
    return prepare_store(csv_source(folder / "shop.yaml"), folder / "store")


def rows_of(store):
    splits = [store.split(name) for name in ("train", "validation", "test")]
    batches = [split.slice(0, len(split)) for split in splits]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def expected(table):
    click = (table["click"] == "yes").to_numpy()
    columns = [click, np.where(click, table["purchase"], np.nan)]
    columns += [table["watch"], table["rating"], table["visits"]]
    return np.stack(columns, axis=1).astype(np.float32)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", "frame"])
def test_goals_of_every_kind(tmp_path, suffix):
    table = log()
    if suffix == "frame":
        store = hyperrec_jax.prepare(
            table, tmp_path / "shop", goals=GOALS, categorical=["item"], weight="shown"
        )
    else:
        store = prepared(tmp_path, describe(), table, suffix)
    schema = store.schema
    assert schema.tasks == ("click", "buy", "watch", "rating", "visits")
    assert (schema.label_dtype, schema.weight) == ("float32", "shown")
    assert Store.open(store.path).schema == schema
    batch, wanted = rows_of(store), expected(table)
    # The order of the rows is that of the splits: compare them as a set.
    got = np.column_stack([batch["weight"], batch["labels"]])
    wanted = np.column_stack([table["shown"].astype(np.float32), wanted])
    np.testing.assert_array_equal(
        *(m[np.lexsort(np.nan_to_num(m, nan=-1).T)] for m in (got, wanted))
    )


def test_statistics_and_fitted_options(tmp_path):
    store = prepared(tmp_path, describe(), log())
    train = store.split("train")
    batch = train.slice(0, len(train))
    for goal, known in enumerate(train.statistics):
        present = ~np.isnan(batch["labels"][:, goal])
        wanted = Statistics.of(batch["labels"][present, goal], batch["weight"][present, 0])
        assert known.count == present.sum()
        np.testing.assert_allclose(known.values, wanted.values, rtol=1e-12)
        assert known.positive_rate == pytest.approx(wanted.positive_rate)
    amounts = batch["labels"][:, 2].astype(np.float64)
    positive, mass = amounts > 0, batch["weight"][:, 0].astype(np.float64)
    watch = create_goals(store.schema)[2]
    mean = np.average(np.log(amounts[positive]), weights=mass[positive])
    assert watch.location == pytest.approx(mean)
    assert create_goals(store.schema)[1].sampling_rate == 0.1
    table = summary(store)
    count = train.statistics[1].count
    assert f"{count:,}" in table
    assert "rows with a label" in table


def test_binary_goals_without_gaps_are_stored_as_before(tmp_path):
    table = log().drop(columns="rating")
    short = prepared(tmp_path, describe(goals=None, labels=["click"], weight=None), table)
    long = prepared(tmp_path, describe(goals=["click"], weight=None), table)
    assert short.schema.label_dtype == long.schema.label_dtype == "uint8"
    assert short.schema == long.schema
    np.testing.assert_array_equal(rows_of(short)["labels"], rows_of(long)["labels"])
    known = short.split("train").statistics[0]
    labels = short.split("train").slice(0, known.count)["labels"][:, 0]
    assert known.positive_rate == labels.mean()
    assert list(rows_of(short)) == ["categorical", "numerical", "labels"]


def test_a_gap_of_a_binary_goal_is_masked(tmp_path):
    table = log()
    table.loc[3, "click"] = None
    labels = rows_of(prepared(tmp_path, describe(goals=["click"]), table))["labels"]
    assert labels.dtype == np.float32
    assert np.isnan(labels).sum() == 1


def test_funnels_of_several_steps(tmp_path):
    table = log()
    goals = [{"name": "visits", "kind": "count", "where": "buy"}, *GOALS[:2]]
    labels = rows_of(prepared(tmp_path, describe(goals=goals), table))["labels"]
    assert (np.isnan(labels[:, 0]) == ~(labels[:, 2] > 0)).all()


@pytest.mark.parametrize(
    ("changes", "cell", "message"),
    [
        ({}, ("visits", 1.5), r"row 4, column 'visits': 1.5 is not a whole number"),
        ({}, ("watch", -1), r"row 4, column 'watch': -1.0 is not an amount of at least 0"),
        ({}, ("rating", 1e300), r"row 4, column 'rating': 1e\+300 is too large"),
        ({}, ("click", "maybe"), r"row 4, column 'click': 'maybe' is not a label"),
        ({}, ("shown", -1), r"row 4, column 'shown': -1.* is negative; a weight"),
        ({}, ("shown", None), r"row 4, column 'shown': an empty cell is missing"),
        ({"goals": None, "labels": "click"}, ("click", None), "name the column under goals"),
        ({"labels": ["click"]}, None, "has both labels and goals"),
        ({"goals": ["click", "click"]}, None, "two of them are named 'click'"),
        ({"goals": [{"name": "click", "kind": "ordinal"}]}, None, "no kind 'ordinal'"),
        ({"goals": [{"name": "click", "kind": "graded"}]}, None, "kind graded has no loss"),
        ({"goals": [{"name": "click", "rate": 1}]}, None, r"shop.yaml: goals: .*no option 'rate'"),
        ({"goals": [{"kind": "count"}]}, None, "goals: name: None is not a name"),
        ({"goals": [*GOALS, {"name": "z", "where": "nil"}]}, None, "where: no goal 'nil'"),
        ({"goals": [{"name": "click", "where": "click"}]}, None, "leads back to 'click'"),
        (
            {"goals": [GOALS[3], {"name": "click", "where": "rating"}]},
            None,
            "rating is a regression goal",
        ),
        ({"weight": "item"}, None, "column 'item' is used twice"),
    ],
)
def test_refusals(tmp_path, changes, cell, message):
    table = log().astype({"shown": float, "visits": float})
    if cell:
        table.loc[3, cell[0]] = cell[1]
    with pytest.raises(UserError, match=message):
        prepared(tmp_path, describe(**changes), table)
    assert not (tmp_path / "store").exists()


def test_labels_that_leave_nothing_to_learn_are_refused(tmp_path):
    table = log()
    table["watch"] = 0.0
    with pytest.raises(UserError, match="goal 'watch' has no label above 0"):
        prepared(tmp_path, describe(), table)
    assert not (tmp_path / "store").exists()
