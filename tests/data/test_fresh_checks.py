"""What the description of a fresh log may say, and what it may not."""

import numpy as np
import pandas as pd
import pytest
import yaml

from hyperrec_jax.commands.prepare import main
from hyperrec_jax.data.fresh import fresh_source
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError

DESCRIBED = {
    "files": {"train": "log.parquet"},
    "categorical": [
        {"name": "item", "min_count": 2},
        {"name": "last", "shares": "item"},
        {"name": "user", "hash_buckets": 16},
    ],
    "numerical": [{"name": "price", "log1p": True}, {"name": "age", "missing": 3}],
    "sets": [{"name": "tags", "max_values": 3}],
    "sequences": [{"name": "seen", "shares": "item"}],
    "vectors": [{"name": "picture", "size": 2}],
    "time": ["at"],
    "goals": ["click", {"name": "watched", "kind": "value", "where": "click"}],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder, rng, rows = tmp_path_factory.mktemp("data"), np.random.default_rng(0), 120
    frame = pd.DataFrame(
        {
            "item": rng.integers(0, 9, rows),
            "last": rng.integers(0, 9, rows),
            "user": np.arange(rows),
            "price": rng.lognormal(size=rows),
            "age": rng.normal(40, 9, rows),
            "tags": [["a", "b"]] * rows,
            "seen": [[1, 2, 3]] * rows,
            "picture": list(rng.normal(size=(rows, 2))),
            "at": pd.Timestamp("2026-01-31") + pd.to_timedelta(np.arange(rows), "min"),
            "click": np.arange(rows) % 2,
            "watched": rng.lognormal(size=rows),
        }
    )
    frame.to_parquet(folder / "log.parquet")
    (folder / "own.yaml").write_text(yaml.safe_dump(DESCRIBED))
    main(["csv", f"--input={folder / 'own.yaml'}", f"--output={folder / 'store'}"])
    return Store.open(folder / "store")


@pytest.fixture
def read(store, caplog):
    def read(**change):
        path = store.path.parent / "fresh.yaml"
        path.write_text(yaml.safe_dump(DESCRIBED | change))
        caplog.clear()
        fresh_source(path, store.schema)
        return [record.getMessage() for record in caplog.records]

    return read


def test_what_the_model_was_trained_with_may_be_said_or_left_out(read):
    assert read() == []
    plain = {
        "categorical": ["item", {"name": "last", "shares": "item"}, "user"],
        "numerical": ["price", "age"],
        "sets": ["tags"],
        "goals": ["click", {"name": "watched", "column": "seconds"}],
    }
    assert read(**plain) == []


def test_what_has_no_effect_is_told_in_a_line(read):
    (line,) = read(split={"by": "time", "column": "at", "test": "7d"}, min_count=9)
    assert line.endswith("all rows of which are scored: split, min_count")
    (line,) = read(goals=[*DESCRIBED["goals"], "buy"], numerical=[*DESCRIBED["numerical"], "more"])
    assert line.endswith("the model reads no such column: numerical: more, goals: buy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categorical": [{"name": "item", "min_count": 3}, "last", "user"]},
         "categorical: item: min_count: 3, and the model, .* was trained with 2; leave it out"),
        ({"categorical": ["item", "last", {"name": "user", "hash_buckets": 99}]},
         "categorical: user: hash_buckets: 99, .* with 16"),
        ({"numerical": [{"name": "price", "log1p": False}, "age"]}, "price: log1p: False, .* True"),
        ({"numerical": [{"name": "price", "missing": 1}, "age"]}, "trained without one"),
        ({"sets": [{"name": "tags", "pooling": "sum"}]}, "tags: pooling: 'sum', .* 'mean'"),
        ({"sets": ["tags", "seen"], "sequences": []},
         "sets: seen: the model has it under sequences; move it"),
        ({"vectors": [{"name": "picture", "size": 3}]}, "picture: size: 3, .* with 2"),
        ({"goals": ["click", {"name": "watched", "kind": "count"}]}, "kind: 'count', .* 'value'"),
        ({"goals": ["click", {"name": "watched", "kind": "value", "weight": 2}]}, "no option"),
    ],
)  # fmt: skip
def test_what_contradicts_the_model_is_refused_in_a_line(read, change, message):
    with pytest.raises(UserError, match=message) as refused:
        read(**change)
    assert "\n" not in str(refused.value)
