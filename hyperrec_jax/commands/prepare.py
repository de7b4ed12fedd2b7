"""Makes a store from a data source: `hyperrec prepare SOURCE ...`.

Memory stays below about 2 GiB whatever the size of the input; an interrupted run is taken up by the
same command; the store appears under its name only when it is complete.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hyperrec_jax.commands import cli
from hyperrec_jax.data.checks import unseen_shares
from hyperrec_jax.data.columns import SPLITS
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.schema import CategoricalField, MultivaluedField, Schema
from hyperrec_jax.data.source import Source
from hyperrec_jax.data.sources.registry import SOURCES
from hyperrec_jax.data.split import Split
from hyperrec_jax.data.store import Store
from hyperrec_jax.data.times import moment
from hyperrec_jax.evaluation.sanity import suspicions


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and prints a summary of the store.

    Raises:
      UserError: The input is unusable, or the output cannot be written.
    """
    # First what registers sources, then the parser that lists them.
    imports = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    cli.add_import(imports)
    rest = imports.parse_known_args(argv)[1]
    arguments = _parser().parse_args(rest)
    source: Source = arguments.make_source(arguments)
    output = arguments.output or Path("data") / source.name
    store = prepare_store(source, output, arguments.validation_fraction)
    print(summary(store))
    for line in suspicions(store):
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
    lines += _times(store)
    if schema.label_dtype != "uint8":
        lines.append("of each goal: rows with a label, and their share of positives or their mean")
    if schema.best_auc:
        lines.append(
            f"{'best AUC':<26}" + "".join(f"{auc:>{width + 9}.4f}" for auc in schema.best_auc)
        )
    sizes = ", ".join(map(_ids, schema.categorical)) or "none"
    # Training rows have unknown values only where rare ones count as such.
    rare = ["train"] if any(field.min_count > 1 for field in schema.id_fields) else []
    lines += [
        "",
        f"{len(schema.categorical)} categorical fields, ids with out-of-vocabulary: {sizes}",
        *_by_rule(schema),
        *_fields_of_several(store),
        *(unseen_shares(schema, store.split(name), name) for name in (*rare, "validation", "test")),
        f"{schema.num_numerical} numerical fields; group: {schema.group or 'none'}",
    ]
    if schema.best_auc:
        lines.append(
            "best AUC: that of the true probabilities on the test split; beaten only by chance"
        )
    return "\n".join(lines)


def _ids(field: CategoricalField | MultivaluedField) -> str:
    """The number of ids of a field."""
    return f"{field.size - 1:,} hashed" if field.hashed else f"{field.size:,}"


def _by_rule(schema: Schema) -> list[str]:
    """A line for each vocabulary that has only frequent values, or whose values are hashed."""
    lines = []
    for field in schema.id_fields:
        if field.shares:
            continue
        if field.hashed:
            lines.append(
                f"{field.name}: values are hashed to {field.size - 1:,} ids; none is unknown"
            )
        elif field.min_count > 1:
            lines.append(
                f"{field.name}: {field.size - 1:,} values kept; {field.rare:,} that come fewer "
                f"than {field.min_count} times in training share the id of unknown values"
            )
    return lines


def _times(store: Store) -> list[str]:
    """When the rows of each split happened, where the data was split by time."""
    ranges = {name: store.split(name).times for name in SPLITS}
    told = [
        f"{name}: from {moment(times[0])} to {moment(times[1])} (UTC)"
        for name, times in ranges.items()
        if times is not None
    ]
    return ["", *told] if told else []


def _fields_of_several(store: Store) -> list[str]:
    """A line for each field of several values: its ids, and rows that had more than are kept."""
    lines = []
    for index, field in enumerate(store.schema.multivalued):
        ids = f"those of {field.shares}" if field.shares else _ids(field)
        cut = {name: store.split(name).cut[index] for name in SPLITS}
        kept = "first" if field.kind == "set" else "newest"
        lines.append(
            f"{field.kind} {field.name}: ids {ids}, at most {field.length} values, pooled by "
            f"{field.pooling}; rows with more, of which the {kept} are kept: "
            + (", ".join(f"{name} {rows:,}" for name, rows in cut.items() if rows) or "none")
        )
    lines += [f"vector {v.name}: {v.width} numbers" for v in store.schema.vectors]
    return lines + [
        f"time {t.name}: {', '.join(t.derived)}; the age counts back from {moment(t.newest)} (UTC)"
        for t in store.schema.times
    ]


def _labels(schema: Schema, split: Split, goal: int, width: int) -> str:
    """What a split has of a goal's labels."""
    known = split.statistics[goal]
    if schema.label_dtype == "uint8":
        return (
            f"{split.positives[goal]:>{width},} {split.positives[goal] / max(known.count, 1):>7.2%}"
        )
    if schema.goals[goal].binary:
        return f"{known.count:>{width},} {known.positive_rate:>7.2%}"
    return f"{known.count:>{width},} {known.values.mean:>7.4g}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hyperrec prepare",
        description="Turn a data source into a store that `hyperrec train` reads. Run the same "
        "command again after an interruption: finished stages are kept.",
    )
    cli.add_import(parser)
    sources = parser.add_subparsers(title="sources", required=True, metavar="SOURCE")
    for name, make_command in SOURCES.items():
        command = make_command()
        source = sources.add_parser(
            name,
            help=command.summary,
            description=command.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        source.set_defaults(make_source=command.make)
        source.add_argument(
            "--output", type=Path, help="folder of the store (default: data/ and the source's name)"
        )
        source.add_argument(
            "--validation-fraction",
            type=float,
            default=0.1,
            help="share of the training groups set aside for validation where the source has no "
            "validation split of its own (default: %(default)s)",
        )
        command.add_arguments(source)
    return parser
