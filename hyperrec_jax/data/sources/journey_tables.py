"""The tables of The Complete Journey, read and checked."""

import dataclasses
from pathlib import Path

import polars as pl

from hyperrec_jax.data.sources.tables import Columns, explain_damage, scan_table

TABLES = ("transactions", "products", "promotions", "demographics")
"""The Parquet files that are read; the package has some more."""

LEVELS = {
    "product": "product_id",
    "type": "product_type",
    "category": "product_category",
    "department": "department",
    "manufacturer": "manufacturer_id",
}
"""What a product belongs to, from the finest to the coarsest, and the column that says so."""

GROUPS = tuple(column for level, column in LEVELS.items() if level != "product")
CODES = ("display_location", "mailer_location")
DEMOGRAPHICS = (
    "age",
    "income",
    "home_ownership",
    "marital_status",
    "household_size",
    "household_comp",
    "kids_count",
)
UNKNOWN = "unknown"

_TRANSACTIONS = {
    "household_id": pl.Int64,
    "store_id": pl.Int64,
    "basket_id": pl.Int64,
    "product_id": pl.Int64,
    "week": pl.Int64,
    "quantity": pl.Int64,
    "sales_value": pl.Float64,
    "retail_disc": pl.Float64,
}
_PRODUCTS = {"product_id": pl.Int64} | dict.fromkeys(["brand", *GROUPS], pl.String)
_DEMOGRAPHICS = {"household_id": pl.Int64} | dict.fromkeys(DEMOGRAPHICS, pl.String)
_PROMOTIONS = dict.fromkeys(["product_id", "store_id", "week"], pl.Int64) | dict.fromkeys(
    CODES, pl.String
)


@dataclasses.dataclass(frozen=True)
class Journey:
    """The tables.

    Attributes:
      purchases: One row per line of a receipt, sorted by week: the ids, quantity, sales and
        discount in cents, brand and the columns of `LEVELS`, and `first`: whether it is the
        household's first purchase of the product, which depends on rows of the same and earlier
        weeks only.
      products: One row per product: product_id, brand and the columns of `LEVELS`.
      demographics: One row per household of which something is known.
      promotions: A file; a week of its 21 million rows is read at a time.
    """

    purchases: pl.DataFrame
    products: pl.DataFrame
    demographics: pl.DataFrame
    promotions: Path

    @classmethod
    def read(cls, folder: Path) -> "Journey":
        """Reads a folder of Parquet files.

        Raises:
          UserError: A table is missing or damaged, lacks a column, or has a value of another type.
        """
        products = _read(folder / "products.parquet", _PRODUCTS)
        products = products.unique("product_id", keep="first", maintain_order=True)
        products = products.with_columns(pl.col("brand", *GROUPS).fill_null(UNKNOWN))
        transactions = _read(folder / "transactions.parquet", _TRANSACTIONS)
        demographics = _read(folder / "demographics.parquet", _DEMOGRAPHICS)
        return cls(
            purchases=_purchases(transactions, products),
            products=products,
            demographics=demographics.unique("household_id", keep="first", maintain_order=True),
            promotions=folder / "promotions.parquet",
        )

    def promotions_of(self, week: int, stores: pl.Series) -> pl.DataFrame:
        """The products that some stores promote in a week.

        Where a store promotes one in several ways, the codes that sort last count: 0 is none.

        Args:
          week: Number of the week in the year.
          stores: Their ids, repeated or not.

        Returns:
          One row per store and product: store_id, product_id, display_location, mailer_location.

        Raises:
          UserError: The table is damaged, lacks a column, or has a value of another type.
        """
        with explain_damage(self.promotions):
            return (
                scan_table(self.promotions, _PROMOTIONS)
                .filter(pl.col("week") == week, pl.col("store_id").is_in(stores.implode()))
                .group_by("store_id", "product_id")
                .agg(pl.col(CODES).max())
                .collect(engine="streaming")
            )


def _read(path: Path, columns: Columns) -> pl.DataFrame:
    with explain_damage(path):
        return scan_table(path, columns).collect()


def _purchases(transactions: pl.DataFrame, products: pl.DataFrame) -> pl.DataFrame:
    cents = (pl.col("sales_value", "retail_disc") * 100).round().cast(pl.Int64)
    return (
        transactions.with_columns(cents)
        .rename({"sales_value": "sales", "retail_disc": "discount"})
        .sort("week", "household_id", "basket_id", "product_id", "store_id", "sales", "quantity")
        .with_columns(first=pl.struct("household_id", "product_id").is_first_distinct())
        .join(products, on="product_id", how="left", maintain_order="left")
        .with_columns(pl.col("brand", *GROUPS).fill_null(UNKNOWN))
    )
