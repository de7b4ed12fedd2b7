"""The whole job on Census-Income (KDD) from Python: prepare, fit, evaluate, choose, predict.

    python examples/census_income.py census_income_kdd.csv.gz --output runs/census_example

The file has no header; https://archive.ics.uci.edu/dataset/117/census+income+kdd.
"""

import argparse
from pathlib import Path

import polars as pl

from hyperrec_jax import fit, prepare
from hyperrec_jax.data.sources.census_income import COLUMNS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("input", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/census_example"))
    parser.add_argument("--rows", type=int, help="use only so many rows")
    arguments = parser.parse_args()

    people = pl.read_csv(
        arguments.input,
        has_header=False,
        new_columns=list(COLUMNS),
        n_rows=arguments.rows,
        infer_schema=False,
    ).with_columns(pl.all().str.strip_chars())
    numbers = ["age", "wage_per_hour", "capital_gains", "dividends_from_stocks"]
    people = people.with_columns(
        pl.col(numbers).cast(pl.Float64),
        rich=pl.col("income").str.starts_with("50000+").cast(pl.Int8),
        never_married=(pl.col("marital_status") == "Never married").cast(pl.Int8),
    )
    store = prepare(
        people,
        arguments.output / "data",
        categorical=["education", "sex", "class_of_worker", "major_occupation_code", "race"],
        numerical=numbers,
        log1p=numbers[1:],
        labels=["rich", "never_married"],
    )
    options = {
        "model.num_experts": 3,
        "model.embedding_dim": 16,
        "model.bottom_widths": (64,),
        "model.tower_widths": (32,),
        "train.epochs": 2,
    }
    model = fit(store, arguments.output / "run", options)
    model.plot(arguments.output / "front.png", model.evaluate(preferences=11))
    choice = model.suggest("best:never_married,rich=1%")
    print(choice)
    print(model.predict(people.head(3), choice.preference))


if __name__ == "__main__":
    main()
