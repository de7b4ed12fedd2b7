"""A small generated stand-in for the tables of The Complete Journey."""

from pathlib import Path

import numpy as np
import polars as pl

HOUSEHOLDS, STORES, PRODUCTS, WEEKS = range(101, 113), (31, 32), range(1000, 1060), range(1, 54)


def journey_tables(seed: int = 0) -> dict[str, pl.DataFrame]:
    """Twelve households, two stores, sixty products; the columns and types of the package."""
    rng = np.random.default_rng(seed)
    liked = {household: rng.choice(PRODUCTS, 12, replace=False) for household in HOUSEHOLDS}
    lines = []
    for week in WEEKS:
        for household in HOUSEHOLDS:
            if rng.random() < 0.7:
                basket = 10_000 * week + household
                store = STORES[0] if rng.random() < 0.8 else STORES[1]
                chosen = {*rng.choice(liked[household], 3), *rng.choice(PRODUCTS, 2)}
                lines += [purchase(household, store, basket, p, week, rng) for p in sorted(chosen)]
    return {
        "transactions": pl.DataFrame(lines),
        "products": _products(rng),
        "promotions": _promotions(rng),
        "demographics": _demographics(rng),
    }


def purchase(
    household: int, store: int, basket: int, product: int, week: int, rng: np.random.Generator
) -> dict[str, int | float]:
    """A line of a receipt."""
    return {
        "household_id": household,
        "store_id": store,
        "basket_id": basket,
        "product_id": int(product),
        "quantity": int(rng.integers(1, 4)),
        "sales_value": round(float(rng.uniform(0.5, 9)), 2),
        "retail_disc": float(rng.choice([0.0, 0.5])),
        "week": week,
    }


def write_tables(folder: Path, tables: dict[str, pl.DataFrame]) -> Path:
    """Writes each table as a Parquet file; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet")
    return folder


def _products(rng: np.random.Generator) -> pl.DataFrame:
    kinds = rng.integers(0, 12, len(PRODUCTS))
    return pl.DataFrame(
        {
            "product_id": list(PRODUCTS),
            "manufacturer_id": rng.integers(1, 9, len(PRODUCTS)),
            "department": [f"D{kind // 6}" for kind in kinds],
            "brand": rng.choice(["National", "Private"], len(PRODUCTS), p=(0.7, 0.3)),
            "product_category": [f"C{kind // 3}" if kind else None for kind in kinds],
            "product_type": [f"T{kind}" if kind else None for kind in kinds],
        }
    )


def _promotions(rng: np.random.Generator) -> pl.DataFrame:
    rows = [
        {
            "product_id": int(product),
            "store_id": store,
            "display_location": str(rng.choice(["0", "5", "A"])),
            "mailer_location": str(rng.choice(["0", "A", "H"])),
            "week": week,
        }
        for week in WEEKS
        for store in STORES
        for product in rng.choice(PRODUCTS, 30, replace=True)  # some in two ways
    ]
    return pl.DataFrame(rows)


def _demographics(rng: np.random.Generator) -> pl.DataFrame:
    known = list(HOUSEHOLDS)[::2]
    return pl.DataFrame(
        {
            "household_id": known,
            "age": rng.choice(["19-24", "65+"], len(known)),
            "income": rng.choice(["Under 15K", "250K+"], len(known)),
            "home_ownership": [None, *["Renter"] * (len(known) - 1)],
            "marital_status": [None, *["Married"] * (len(known) - 1)],
            "household_size": rng.choice(["1", "5+"], len(known)),
            "household_comp": ["1 Adult Kids"] * len(known),
            "kids_count": ["0"] * len(known),
        }
    )
