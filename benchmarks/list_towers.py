"""The lists of The Complete Journey for two towers: what is of the household, what of the product.

The features that count what a household did with a product belong to neither tower. In their place
the household has two sets of ids, the products and the types of product that it bought before the
week, which share the tables of the products' own ids.
"""

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from hyperrec_jax.data.sources.complete_journey import _installed
from hyperrec_jax.data.sources.journey_features import feature_names
from hyperrec_jax.data.sources.journey_tables import DEMOGRAPHICS, Journey

BOUGHT = {"products_bought": "product_id", "types_bought": "product_type"}
"""Sets of the household, with the field that each shares its ids with."""
MOST_BOUGHT = 30
ITEM_IDS = (
    "product_id",
    "product_type",
    "product_category",
    "department",
    "brand",
    "display_location",
    "mailer_location",
)
HOUSEHOLD = (
    "household_baskets",
    "household_baskets_8w",
    "household_weeks_since",
    "household_basket_size",
    "household_basket_dollars",
    "household_products",
    "household_first_share_8w",
    "household_discount_share",
    "household_private_share",
    "household_store_baskets",
    "household_store_weeks_since",
)
ITEM = tuple(name for name in feature_names() if not name.startswith("household"))

TOWERS: dict[str, Any] = {
    "model.name": "two_tower",
    "model.user_fields": (*DEMOGRAPHICS, *BOUGHT, *HOUSEHOLD),
    "model.item_fields": (*ITEM_IDS, *ITEM),
    "list.score": "log_odds",
}
"""The recipe with two towers."""


def tower_tables(tables: Path, to: Path) -> Path:
    """The lists with the sets that a household bought, once; returns their folder."""
    if (to / "description.yaml").exists():
        return to
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    purchases = Journey.read(_installed()).purchases
    description = yaml.safe_load((tables / "description.yaml").read_text("utf-8"))
    for name in description["files"].values():
        lists = pl.read_parquet(tables / name)
        weeks = lists["week"].unique().sort().to_list()
        parts = [_with_bought(lists.filter(week=week), purchases, week) for week in weeks]
        pl.concat(parts).write_parquet(to / name)
    description["categorical"] = [*DEMOGRAPHICS, *ITEM_IDS]
    description["sets"] = [
        {"name": name, "shares": shares, "max_values": MOST_BOUGHT, "pooling": "mean"}
        for name, shares in BOUGHT.items()
    ]
    kept = {*HOUSEHOLD, *ITEM}
    description["numerical"] = [
        column
        for column in description["numerical"]
        if (column["name"] if isinstance(column, dict) else column) in kept
    ]
    (to / "description.yaml").write_text(yaml.safe_dump(description), "utf-8")
    return to


def _with_bought(lists: pl.DataFrame, purchases: pl.DataFrame, week: int) -> pl.DataFrame:
    """The lists of a week with the last ids that their households bought before, newest first."""
    before = purchases.filter(pl.col("week") < week)
    for name, column in BOUGHT.items():
        last = before.group_by("household_id", column).agg(pl.col("week").max(), pl.len())
        ids = (
            last.sort("household_id", "week", "len", column, descending=[False, True, True, False])
            .group_by("household_id", maintain_order=True)
            .agg(pl.col(column).head(MOST_BOUGHT).cast(pl.String).alias(name))
        )
        lists = lists.join(ids, on="household_id", how="left", maintain_order="left")
    return lists.with_columns(pl.col(*BOUGHT).fill_null([]))
