"""Values that come too rarely for an id, and values that are hashed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hyperrec_jax
from hyperrec_jax.commands.prepare import main, summary
from hyperrec_jax.data import vocabulary
from hyperrec_jax.data.fresh import fresh_source, store_of_fresh
from hyperrec_jax.data.hashing import BucketEncoder, bucket_of, hash_of
from hyperrec_jax.data.source import IdRule
from hyperrec_jax.data.sources.description import parse_description
from hyperrec_jax.data.text import to_text
from hyperrec_jax.data.vocabulary import collector_of
from hyperrec_jax.data.vocabulary_file import read_vocabulary, same_vocabulary
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving import Preprocessor
from hyperrec_jax.training.carried_rows import CarriedRows
from hyperrec_jax.training.warm_start import _ids, _require_same_columns

TEXTS = st.text(st.characters(codec="utf-8"), max_size=5)


def test_the_hash_never_changes():
    """Models are served by other versions of the program than those that trained them."""
    assert [hash_of(text) for text in ("", "7", "\u00e9")] == [
        13020603013274838756,
        9407870976149377255,
        3394012004367669963,
    ]


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1), st.integers(2, 50))
def test_a_column_is_hashed_as_each_of_its_values(texts, buckets):
    ids = BucketEncoder(buckets)(pa.array(texts))
    assert ids.tolist() == [bucket_of(text, buckets) for text in texts]
    assert ids.min() >= 1
    assert ids.max() <= buckets


@settings(deadline=None)
@given(st.lists(st.lists(TEXTS, max_size=9), min_size=1, max_size=9), st.integers(1, 4))
def test_the_frequent_values_of_a_stream_are_those_of_a_counter(chunks, least):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "_LEAST", 3)
        collector = collector_of(IdRule(min_count=least))
        for chunk in chunks:
            collector.add(pa.array(chunk, pa.string()))
        values, rare = collector.found()
    counts = Counter(text for chunk in chunks for text in chunk)
    kept = sorted((t for t in counts if counts[t] >= least), key=str.encode)
    assert values.to_pylist() == kept
    assert rare == len(counts) - len(kept)


ROWS = 60
CELLS = [7, 7.0, "7", "007", None, "x ", "x", True, "NaN", 3.58, "\u00e9", "q"]


def _columns(rng):
    """Values that come about as often as they stand far behind."""

    def column(values):
        places = (len(values) * rng.random(ROWS) ** 0.5).astype(int)
        return [values[place] for place in places]

    def lists(values):
        return [column(values)[:length] for length in rng.integers(0, 5, ROWS)]

    return pa.table(
        {
            "item": [None if value is None else str(value) for value in column(CELLS)],
            "last": column([*range(10), None]),
            "seen": lists(list(range(10))),
            "user": [f"u{row}" for row in range(ROWS)],
            "tags": lists(list("abc")),
            "age": list(range(ROWS)),
            "click": [row % 2 for row in range(ROWS)],
        }
    )


RULES = {
    "vocabulary": {
        "categorical": ["item", {"name": "last", "min_count": 4}, "user"],
        "sequences": [{"name": "seen", "shares": "last", "max_length": 3}],
        "sets": ["tags"],
        "min_count": 3,
    },
    "hashes": {
        "categorical": [
            {"name": "item", "hash_buckets": 5},
            {"name": "last", "hash_buckets": 50},
            "user",
        ],
        "sequences": [{"name": "seen", "shares": "last", "max_length": 3}],
        "sets": [{"name": "tags", "hash_buckets": 2}],
    },
}


def _expected(rule, texts, counted):
    """Ids of some texts by a plain loop, and the number of ids."""
    if "hash_buckets" in rule:
        return [bucket_of(text, rule["hash_buckets"]) for text in texts], rule["hash_buckets"] + 1
    known = sorted((t for t, n in counted.items() if n >= rule["min_count"]), key=str.encode)
    return [known.index(text) + 1 if text in known else 0 for text in texts], len(known) + 1


@pytest.mark.filterwarnings("ignore")  # such small tables are suspicious
@pytest.mark.parametrize("rules", list(RULES))
@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=5, suppress_health_check=list(HealthCheck))
def test_prepare_and_serving_agree(rules, seed, tmp_path_factory):
    table = _columns(np.random.default_rng(seed))
    folder = tmp_path_factory.mktemp("data") / "own"
    store = hyperrec_jax.prepare(
        table, folder, labels=["click"], numerical=["age"], test_fraction=0.2, **RULES[rules]
    )
    encode = Preprocessor.open(store.schema, store.path / "vocabulary.arrow")
    served = encode(table)
    scale, training = store.schema.numerical[0], np.zeros(ROWS, bool)
    for name in ("train", "validation", "test"):
        batch = store.split(name).slice(0, len(store.split(name)))
        rows = np.rint(batch["numerical"][:, 0] * scale.std + scale.mean).astype(int)
        np.testing.assert_array_equal(served.categorical[rows], batch["categorical"])
        several = np.concatenate(served.multivalued, axis=1)
        np.testing.assert_array_equal(several[rows], batch["multivalued"])
        unknown = [(batch["categorical"] == 0).sum(0), (batch["multivalued"][:, :20] == 0).any(1)]
        assert store.split(name).unseen[:4] == (*unknown[0], unknown[1].sum())
        training[rows] = name == "train"

    def counted(*names):
        taken = table.filter(pa.array(training))
        return Counter(
            text
            for name in names
            for cell in taken[name].to_pylist()
            for text in to_text(pa.array(cell[-3:] if name == "seen" else [cell])).to_pylist()
        )

    if rules == "vocabulary":
        of_last, of_item = {"min_count": 4}, {"min_count": 3}
    else:
        of_last, of_item = {"hash_buckets": 50}, {"hash_buckets": 5}
    for index, (name, rule, counts) in enumerate(
        [("item", of_item, counted("item")), ("last", of_last, counted("last", "seen"))]
    ):
        texts = to_text(table[name].combine_chunks()).to_pylist()
        ids, size = _expected(rule, texts, counts)
        assert served.categorical[:, index].tolist() == ids
        assert store.schema.categorical[index].size == size
    assert store.schema.multivalued[1].size == store.schema.categorical[1].size


REFUSED = [
    ({"min_count": 0}, "min_count: 0 is not a whole number from 1 to"),
    ({"categorical": [{"name": "a", "min_count": True}]}, "categorical: a: min_count: True is not"),
    ({"categorical": [{"name": "a", "hash_buckets": 1}]}, "hash_buckets: 1 is not a whole number"),
    (
        {"categorical": [{"name": "a", "hash_buckets": 9, "min_count": 2}]},
        "has both hash_buckets and min_count",
    ),
    (
        {"categorical": ["a"], "sets": [{"name": "b", "shares": "a", "hash_buckets": 9}]},
        "sets: b: hash_buckets: it uses the ids of 'a'; say it there",
    ),
    ({"categorical": [{"name": "a", "max_values": 9}]}, "unknown key 'max_values'"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_contradictions_are_refused_in_one_line(values, message):
    with pytest.raises(UserError) as refused:
        parse_description(
            Path("own.yaml"), {"categorical": ["a"], "labels": ["click"], "min_count": 3} | values
        )
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def _log(rows=600, first=0, seed=0):
    """Items that come about as often as their number says, and as many users as rows."""
    rng = np.random.default_rng(seed)
    weights = np.arange(1, 31) / np.arange(1, 31).sum()
    return pd.DataFrame(
        {
            "item": rng.choice(np.arange(first, first + 30), rows, p=weights),
            "user": [f"u{first}_{row}" for row in range(rows)],
            "click": rng.integers(0, 2, rows),
        }
    )


DESCRIBED = {
    "files": {"train": "log.csv"},
    "categorical": [{"name": "item", "min_count": 10}, {"name": "user", "hash_buckets": 64}],
    "labels": ["click"],
}


@pytest.fixture
def prepared(tmp_path):
    def prepared(name="old", log=None, **description):
        (tmp_path / name).mkdir()
        (log if log is not None else _log()).to_csv(tmp_path / name / "log.csv", index=False)
        path = tmp_path / name / "own.yaml"
        path.write_text(yaml.safe_dump(DESCRIBED | description))
        assert main(["csv", f"--input={path}", f"--output={tmp_path / name / 'store'}"]) == 0
        return hyperrec_jax.data.store.Store.open(tmp_path / name / "store")

    return prepared


def test_prepare_tells_what_became_of_the_values(prepared, capsys):
    store = prepared()
    told = capsys.readouterr().out
    item, _ = store.schema.categorical
    assert item.rare > 0
    assert item.size - 1 + item.rare == 30
    assert f"item: {item.size - 1} values kept; {item.rare} that come fewer than 10 times" in told
    assert "user: values are hashed to 64 ids; none is unknown" in told
    assert f"ids with out-of-vocabulary: {item.size}, 64 hashed" in told
    share = store.split("train").unseen[0] / len(store.split("train"))
    assert (
        f"train: rows with a value that training never saw, or too rarely: item {share:.2%}" in told
    )
    assert share > 0
    with pytest.raises(UserError, match=r"'user' in .* has no vocabulary"):
        store.vocabulary("user")
    assert "hashed" not in summary(prepared("plain", categorical=["item"]))


def test_a_fresh_log_is_read_by_the_same_rules(prepared, tmp_path):
    store = prepared()
    _log(50, first=5, seed=1).to_csv(tmp_path / "fresh.csv", index=False)
    values = read_vocabulary(store.path / "vocabulary.arrow")
    source = fresh_source(tmp_path / "fresh.csv", store.schema)
    encode = Preprocessor.open(store.schema, store.path / "vocabulary.arrow")
    fresh = store_of_fresh(source, tmp_path / "fresh", store.schema, encode.vocabulary)
    split = fresh.split("test")
    served = encode(pd.read_csv(tmp_path / "fresh.csv"))
    np.testing.assert_array_equal(split.slice(0, 50)["categorical"], served.categorical)
    assert split.unseen == (np.count_nonzero(served.categorical[:, 0] == 0), 0)
    assert not len(values["user"].values)


def test_a_warm_start_keeps_the_rows_of_hashes_and_of_values_that_both_have(prepared):
    old, new = prepared(), prepared("new", _log(first=4, seed=2))
    paths = [store.path / "vocabulary.arrow" for store in (old, new)]
    ids, told = _ids(new.schema, *paths)
    rows = CarriedRows(ids, old.schema.table_sizes, ()).rows("embedding")
    known, values = (store.vocabulary("item").to_pylist() for store in (old, new))
    assert rows[0] == 0
    expected = [known.index(value) + 1 if value in known else 0 for value in values]
    assert rows[1 : len(values) + 1].tolist() == expected
    assert rows[len(values) + 1 :].tolist() == list(range(len(known) + 1, len(known) + 66))
    assert told[1] == "field 'user': all 64 hashed ids keep their embeddings"
    assert same_vocabulary(paths[0], paths[0], old.schema)
    assert not same_vocabulary(*paths, old.schema)
    other = prepared("other", categorical=["item", {"name": "user", "hash_buckets": 65}])
    with pytest.raises(UserError, match=r"its hashed fields are user \(hash_buckets: 64\)"):
        _require_same_columns("train.init_from=old", old.schema, other.schema)
