"""Data sources by name, each with the arguments that `hyperrec prepare` takes for it.

@SOURCES.register("shop")
def shop_command() -> SourceCommand:
    return SourceCommand(
        summary="the logs of our shop",
        description="Reads what the export job writes.",
        add_arguments=add_input("the folder of the export"),
        make=lambda arguments: shop_source(arguments.input),
    )
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hyperrec_jax.data.source import Source
from hyperrec_jax.registry import Registry


@dataclass(frozen=True)
class SourceCommand:
    """A data source as a subcommand of `hyperrec prepare`.

    Attributes:
      summary: What it holds, for the list of sources.
      description: What it reads and where that comes from, for its own help.
      add_arguments: Adds its arguments to a parser; `--output` and `--validation-fraction` are
        there already.
      make: The source that parsed arguments ask for.
    """

    summary: str
    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    make: Callable[[argparse.Namespace], Source]


SOURCES: Registry[SourceCommand] = Registry("source", "hyperrec_jax.data.sources")


def add_input(text: str, required: bool = True) -> Callable[[argparse.ArgumentParser], None]:
    """What adds the argument `--input`, a file or folder.

    Args:
      text: What it is.
      required: Whether it must be given.
    """

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--input", type=Path, required=required, help=text)

    return add


def add_tables(parser: argparse.ArgumentParser) -> None:
    """Adds `--tables`, for sources that also write their rows as Parquet files."""
    parser.add_argument(
        "--tables",
        type=Path,
        help="folder of the Parquet files and their description (default: the output folder's name "
        "with _tables)",
    )


def tables_folder(arguments: argparse.Namespace, name: str) -> Path:
    """Where such a source writes its Parquet files.

    Args:
      arguments: Parsed arguments, with `tables` and `output`.
      name: Name of the source, for the default.
    """
    output = arguments.output or Path("data") / name
    return Path(arguments.tables or output.with_name(f"{output.name}_tables"))


def add_numbers(parser: argparse.ArgumentParser, defaults: object, texts: dict[str, str]) -> None:
    """Adds an argument for each number of an options dataclass.

    Args:
      parser: The parser.
      defaults: An instance of the dataclass, with the defaults.
      texts: What each is, by field name.
    """
    for name, text in texts.items():
        default = getattr(defaults, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=default,
            help=f"{text} (default: %(default)s)",
        )
