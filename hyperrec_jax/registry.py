"""Parts that a config chooses by name: one lookup with one kind of message."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from hyperrec_jax.errors import UserError

T = TypeVar("T")


def create(
    kind: str, table: Mapping[str, Callable[..., T]], name: str, *args: Any, **options: Any
) -> T:
    """Calls `table[name](*args, **options)`, with messages for what a config can get wrong.

    Args:
      kind: What the table holds, for the messages ('objective').
      table: Constructors by name; their keyword-only parameters are the options.
      name: A key of the table.
      *args: Arguments that all constructors of the table take.
      **options: The options of this one.

    Raises:
      UserError: no such name, no such option, or an option that is missing.
    """
    known = _keywords(kind, table, name)
    for key in options:
        if key not in known:
            choices = f"it takes {', '.join(known)}" if known else "it takes none"
            raise UserError(f"{kind} '{name}' has no option '{key}'; {choices}")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in options:
            raise UserError(f"{kind} '{name}' needs the option '{key}'")
    return table[name](*args, **options)


def defaults(kind: str, table: Mapping[str, Callable[..., Any]], name: str) -> dict[str, Any]:
    """The options of `table[name]` that have a default, with it.

    Raises:
      UserError: no such name.
    """
    return {
        key: parameter.default
        for key, parameter in _keywords(kind, table, name).items()
        if parameter.default is not parameter.empty
    }


def _keywords(
    kind: str, table: Mapping[str, Callable[..., Any]], name: str
) -> dict[str, inspect.Parameter]:
    if name not in table:
        raise UserError(f"no {kind} '{name}'; there are {', '.join(sorted(table))}")
    return {
        key: parameter
        for key, parameter in inspect.signature(table[name]).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
