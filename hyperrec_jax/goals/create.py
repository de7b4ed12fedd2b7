"""Goals by the name of their kind, with their options checked."""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any, cast

from hyperrec_jax.errors import UserError
from hyperrec_jax.goals.base import Goal
from hyperrec_jax.goals.kinds import GOALS


def create_goal(kind: str, name: str, **options: Any) -> Goal:
    """Makes a goal.

    Goals whose loss depends on the training labels need `goal.fitted(statistics)` before use, which
    returns the others unchanged.

    Args:
      kind: A key of `GOALS`: 'binary', 'regression', 'count', 'value', 'variety', 'graded' or
        'fairness'.
      name: The goal's name.
      **options: Fields of the class of that kind.

    Raises:
      UserError: Unknown kind or option, an option that is missing, or a value out of its range.
    """
    goal_class = _goal_class(kind, f"goal '{name}'")
    known = {field.name: field for field in dataclasses.fields(goal_class) if field.name != "name"}
    for option in options:
        if option not in known:
            raise UserError(f"goal '{name}' ({kind}): no option {_unknown(option, known)}")
    for option, field in known.items():
        if field.default is dataclasses.MISSING and option not in options:
            raise UserError(f"goal '{name}' ({kind}): the option '{option}' is missing")
    return goal_class(name, **options)


def goal_options(kind: str) -> dict[str, Any]:
    """The options of a kind of goal that have a default, with it.

    Args:
      kind: A key of `GOALS`.

    Raises:
      UserError: Unknown kind.
    """
    return {
        field.name: field.default
        for field in dataclasses.fields(_goal_class(kind, "goal"))
        if field.default is not dataclasses.MISSING
    }


def _goal_class(kind: str, what: str) -> type[Goal]:
    if kind not in GOALS:
        raise UserError(f"{what}: no kind {_unknown(kind, GOALS)}")
    return cast(type[Goal], GOALS[kind])


def _unknown(word: str, choices: Iterable[str]) -> str:
    """The end of a message on a word that is none of the choices."""
    near = difflib.get_close_matches(word, list(choices), n=1)
    if near:
        return f"'{word}'; did you mean '{near[0]}'?"
    known = ", ".join(sorted(choices))
    return f"'{word}'; choose one of {known}" if known else f"'{word}'; it has none"
