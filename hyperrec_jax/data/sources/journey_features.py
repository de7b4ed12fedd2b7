"""Features of a candidate product for a household, from the purchases of earlier weeks alone.

`history` is everywhere the rows of `Journey.purchases` before the week of the lists. Money is in
whole cents, so that sums do not depend on their order.
"""

import polars as pl

from hyperrec_jax.data.sources.journey_tables import CODES, DEMOGRAPHICS, GROUPS, LEVELS

NEVER = 53
"""Weeks since the last purchase where there was none: the length of the data."""

RECENT_WEEKS = 8
CURRENT_WEEKS = 4

CATEGORICAL = (
    *LEVELS.values(),
    "brand",
    *CODES,
    "store_id",
    *DEMOGRAPHICS,
)


def add_features(candidates: pl.DataFrame, history: pl.DataFrame, week: int) -> pl.DataFrame:
    """Adds the features, all of them numbers without gaps, to the candidates of a week's lists.

    Args:
      candidates: Columns household_id, store_id, product_id, brand and those of `LEVELS`.
      history: Purchases before `week`, of all households.
      week: The week of the lists.

    Returns:
      The candidates in their order, with the columns of `feature_names`.
    """
    own = history.join(candidates.select("household_id").unique(), on="household_id", how="semi")
    frame = candidates
    tables = [_of_household_and_level(own, level, week) for level in LEVELS]
    tables += [_of_household(own, week), _of_household_and_store(own, week)]
    tables += [_of_household_and_brand(own)]
    tables += [_of_product(history, week), _of_product_in_store(history, week)]
    tables += [_of_type(history, week)]
    for keys, table in tables:
        frame = frame.join(table, on=keys, how="left", maintain_order="left")
    return frame.with_columns(
        pl.col(name).fill_null(NEVER if name.endswith("_weeks_since") else 0).cast(pl.Float32)
        for _, table in tables
        for name in table.columns
        if name not in candidates.columns
    )


def feature_names() -> tuple[str, ...]:
    """Names of the numbers that `add_features` adds, in their order."""
    empty = pl.DataFrame(schema=["household_id", "store_id", "product_id", "brand", *GROUPS])
    history = empty.with_columns(
        **dict.fromkeys(("basket_id", "week", "quantity", "sales", "discount"), pl.lit(0)),
        first=pl.lit(False),
    )
    return tuple(
        name for name in add_features(empty, history, 1).columns if name not in empty.columns
    )


Table = tuple[list[str], pl.DataFrame]
"""Key columns, and a frame with those and some features."""


def _recent(week: int, weeks: int) -> pl.Expr:
    return pl.col("week") >= week - weeks


def _since(week: int) -> pl.Expr:
    return week - pl.col("week").max()


def _share(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    """A ratio, 0 where there is nothing to divide by."""
    return pl.when(whole > 0).then(part / whole).otherwise(0.0)


def _of_household_and_level(own: pl.DataFrame, level: str, week: int) -> Table:
    keys = ["household_id", LEVELS[level]]
    name = f"household_{level}"
    first = pl.col("first")
    features = [
        pl.len().alias(f"{name}_count"),
        _recent(week, RECENT_WEEKS).sum().alias(f"{name}_count_{RECENT_WEEKS}w"),
        _since(week).alias(f"{name}_weeks_since"),
    ]
    if level == "product":
        interval = _share(
            pl.col("week").max() - pl.col("week").min(), pl.col("week").n_unique() - 1
        )
        features += [interval.alias(f"{name}_interval")]
    else:
        features += [
            first.sum().alias(f"{name}_firsts"),
            (first & _recent(week, RECENT_WEEKS)).sum().alias(f"{name}_firsts_{RECENT_WEEKS}w"),
        ]
    return keys, own.group_by(keys).agg(features)


def _of_household(own: pl.DataFrame, week: int) -> Table:
    recent = _recent(week, RECENT_WEEKS)
    baskets, first = pl.col("basket_id").n_unique(), pl.col("first")
    return ["household_id"], own.group_by("household_id").agg(
        household_baskets=baskets,
        household_baskets_8w=pl.col("basket_id").filter(recent).n_unique(),
        household_weeks_since=_since(week),
        household_basket_size=pl.len() / baskets,
        household_basket_dollars=pl.col("sales").sum() / 100 / baskets,
        household_products=first.sum(),
        household_first_share_8w=_share((first & recent).sum(), recent.sum()),
        household_discount_share=(pl.col("discount") > 0).mean(),
        household_private_share=(pl.col("brand") == "Private").mean(),
    )


def _of_household_and_store(own: pl.DataFrame, week: int) -> Table:
    keys = ["household_id", "store_id"]
    return keys, own.group_by(keys).agg(
        household_store_baskets=pl.col("basket_id").n_unique(),
        household_store_weeks_since=_since(week),
    )


def _of_household_and_brand(own: pl.DataFrame) -> Table:
    keys = ["household_id", "product_type", "brand"]
    return keys, own.group_by(keys).agg(household_type_brand_count=pl.len())


def _of_product(history: pl.DataFrame, week: int) -> Table:
    current, first = _recent(week, CURRENT_WEEKS), pl.col("first")
    sales, quantity = pl.col("sales"), pl.col("quantity")
    return ["product_id"], history.group_by("product_id").agg(
        product_count=pl.len(),
        product_count_4w=current.sum(),
        product_firsts=first.sum(),
        product_firsts_4w=(first & current).sum(),
        product_repeats=_share(pl.len(), first.sum()),
        product_price=_share(sales.sum(), quantity.sum()) / 100,
        product_price_4w=_share(sales.filter(current).sum(), quantity.filter(current).sum()) / 100,
        product_discount_share=_share(
            pl.col("discount").sum(), sales.sum() + pl.col("discount").sum()
        ),
        product_weeks_since=_since(week),
    )


def _of_product_in_store(history: pl.DataFrame, week: int) -> Table:
    keys = ["store_id", "product_id"]
    return keys, history.group_by(keys).agg(
        store_product_count=pl.len(),
        store_product_count_4w=_recent(week, CURRENT_WEEKS).sum(),
    )


def _of_type(history: pl.DataFrame, week: int) -> Table:
    return ["product_type"], history.group_by("product_type").agg(
        type_count=pl.len(),
        type_count_4w=_recent(week, CURRENT_WEEKS).sum(),
        type_firsts_4w=(pl.col("first") & _recent(week, CURRENT_WEEKS)).sum(),
    )
