"""KDD Census-Income: is the income over 50,000, was the person never married.

Source: https://archive.ics.uci.edu/dataset/117/census+income+kdd. Two inputs are read:

- One file of rows without header (`*.csv`, `*.csv.gz`). Its rows are permuted with
  `numpy.random.default_rng(0)`; the first 66,000 of 99,762 (in general 66,000 / 99,762 of the rows)
  are for training, the last tenth of those for validation, and the rest for test. This is the split
  of the multi-task literature's experiments on this file.
- The folder of the UCI release with `census-income.data` and `census-income.test` (each may end in
  `.gz`): the release's own split is kept, with the last tenth of the permuted training file for
  validation.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hyperrec_jax.data.chunk import Chunk
from hyperrec_jax.data.csv_reader import file_identity, plain_file, read_csv
from hyperrec_jax.data.source import NumericalColumn, Rows, Source
from hyperrec_jax.data.sources.registry import SOURCES, SourceCommand, add_input
from hyperrec_jax.errors import UserError

COLUMNS = (
    "age",
    "class_of_worker",
    "industry_code",
    "occupation_code",
    "education",
    "wage_per_hour",
    "enrolled_in_education_last_week",
    "marital_status",
    "major_industry_code",
    "major_occupation_code",
    "race",
    "hispanic_origin",
    "sex",
    "member_of_a_labor_union",
    "reason_for_unemployment",
    "full_or_part_time_employment",
    "capital_gains",
    "capital_losses",
    "dividends_from_stocks",
    "tax_filer_status",
    "region_of_previous_residence",
    "state_of_previous_residence",
    "detailed_household_and_family_status",
    "detailed_household_summary",
    "instance_weight",
    "migration_code_change_in_msa",
    "migration_code_change_in_region",
    "migration_code_move_within_region",
    "live_in_this_house_one_year_ago",
    "migration_previous_residence_in_sunbelt",
    "number_of_persons_worked_for_employer",
    "family_members_under_18",
    "country_of_birth_father",
    "country_of_birth_mother",
    "country_of_birth_self",
    "citizenship",
    "own_business_or_self_employed",
    "fill_in_questionnaire_for_veterans_administration",
    "veterans_benefits",
    "weeks_worked_in_year",
    "year",
    "income",
)
NUMERICAL = (
    "age",
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "dividends_from_stocks",
    "number_of_persons_worked_for_employer",
    "weeks_worked_in_year",
)
CATEGORICAL = tuple(
    name
    for name in COLUMNS
    if name not in (*NUMERICAL, "instance_weight", "income", "marital_status")
)
TASKS = ("income_50k", "never_married")
INCOMES = ("- 50000.", "50000+.")

_TRAIN_SHARE = 66_000 / 99_762
_WHERE = (
    "download census.tar.gz or census-income.data.gz and census-income.test.gz from "
    "https://archive.ics.uci.edu/dataset/117/census+income+kdd, put them into one folder and give "
    "it as --input"
)


def census_income_source(path: Path) -> Source:
    """KDD Census-Income as a source.

    Args:
      path: A file of rows, or the folder of the UCI release.

    Raises:
      UserError: The files are missing.
    """
    data, test = _find(path, "census-income.data"), _find(path, "census-income.test")
    if data is not None and test is not None:
        files = [data, test]
        splits = {
            "train": lambda staging: _permuted(data, 0.0, 0.9),
            "validation": lambda staging: _permuted(data, 0.9, 1.0),
            "test": lambda staging: _permuted(test, 0.0, 1.0),
        }
    elif path.is_file():
        files = [path]
        splits = {
            "train": lambda staging: _permuted(path, 0.0, 0.9 * _TRAIN_SHARE),
            "validation": lambda staging: _permuted(path, 0.9 * _TRAIN_SHARE, _TRAIN_SHARE),
            "test": lambda staging: _permuted(path, _TRAIN_SHARE, 1.0),
        }
    else:
        raise UserError(f"{path}: the Census-Income files are not here; {_WHERE}")
    return Source(
        name="census_income",
        categorical=CATEGORICAL,
        numerical=tuple(NumericalColumn(name, log1p=True, standardise=True) for name in NUMERICAL),
        tasks=TASKS,
        group=None,
        splits=splits,
        identity=" ".join(file_identity(file) for file in files),
    )


def _find(folder: Path, name: str) -> Path | None:
    """`folder / name`, plain or compressed, if it is there."""
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def _permuted(path: Path, begin: float, end: float) -> Iterator[Rows]:
    """The rows in the positions `[begin, end)`, as shares of all, of the fixed permutation."""
    types = {name: pa.string() for name in COLUMNS} | {name: pa.float64() for name in NUMERICAL}
    chunks = list(read_csv(plain_file(path), types, header=False))
    numbers = np.concatenate([_numbers(chunk) for chunk in chunks])
    labels = np.concatenate([_labels(chunk) for chunk in chunks])
    order = np.random.default_rng(0).permutation(len(labels))
    chosen = order[round(begin * len(order)) : round(end * len(order))]
    yield Rows(
        categorical=tuple(
            pa.chunked_array([chunk.strings(name) for chunk in chunks])
            .take(chosen)
            .combine_chunks()
            for name in CATEGORICAL
        ),
        numerical=numbers[chosen],
        labels=labels[chosen],
    )


def _numbers(chunk: Chunk) -> np.ndarray:
    numbers = chunk.numbers(NUMERICAL, np.float64)
    for name, column in zip(NUMERICAL, numbers.T, strict=True):
        chunk.require(name, column >= 0, "is negative")
    return numbers


def _labels(chunk: Chunk) -> np.ndarray:
    income = chunk.strings("income")
    known = pc.is_in(income, value_set=pa.array(INCOMES)).to_numpy(zero_copy_only=False)
    chunk.require("income", known, f"is neither {INCOMES[0]!r} nor {INCOMES[1]!r}")
    is_rich = pc.not_equal(income, INCOMES[0])
    never_married = pc.equal(chunk.strings("marital_status"), "Never married")
    return np.stack(
        [column.to_numpy(zero_copy_only=False) for column in (is_rich, never_married)], axis=1
    ).astype(np.uint8)


@SOURCES.register("census-income")
def census_income_command() -> SourceCommand:
    """The arguments of `hyperrec prepare census-income`."""
    return SourceCommand(
        summary="KDD Census-Income (income over 50,000, never married)",
        description="Reads one headerless file of rows (.csv or .csv.gz), split 66,000 to 33,762 "
        "by a fixed permutation, or the folder of the UCI release (census-income.data[.gz] and "
        "census-income.test[.gz], from https://archive.ics.uci.edu/dataset/117), whose own split "
        "is kept.",
        add_arguments=add_input("the file, or the folder of the UCI release"),
        make=lambda chosen: census_income_source(chosen.input),
    )
