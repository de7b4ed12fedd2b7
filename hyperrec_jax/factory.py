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
    if name not in table:
        raise UserError(f"no {kind} '{name}'; there are {', '.join(sorted(table))}")
    known = {
        key: parameter
        for key, parameter in inspect.signature(table[name]).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    for key in options:
        if key not in known:
            choices = f"it takes {', '.join(known)}" if known else "it takes none"
            raise UserError(f"{kind} '{name}' has no option '{key}'; {choices}")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in options:
            raise UserError(f"{kind} '{name}' needs the option '{key}'")
    return table[name](*args, **options)
