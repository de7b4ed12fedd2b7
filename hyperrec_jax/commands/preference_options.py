"""The preference of a command that scores a file: given, or chosen by a policy."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hyperrec_jax.errors import UserError

if TYPE_CHECKING:
    from hyperrec_jax.serving.predictor import Predictor


class Chosen(NamedTuple):
    """The preferences of a command.

    Attributes:
      preferences: float32 `[preference, goal]`, each of sum one.
      lines: What a policy decided, one line for each.
    """

    preferences: np.ndarray
    lines: list[str]


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Adds `--policy` and `--segment`."""
    parser.add_argument(
        "--policy",
        type=Path,
        help="policy.yaml that chooses the preference; --preference may then be one of its names",
    )
    parser.add_argument("--segment", help="whom the rows are for, to the policy")


def chosen(arguments: argparse.Namespace, predictor: "Predictor") -> Chosen:
    """The preferences that `--preference`, `--policy` and `--segment` name.

    Raises:
      UserError: they don't fit the model or each other, or the policy draws between several
        preferences, which a file has no requests for.
    """
    # Here and not at the top: --help and a bad option answer before JAX is loaded.
    from hyperrec_jax.preference.grid import parse_preferences
    from hyperrec_jax.serving.policy_file import read_policy

    wish = arguments.preference
    if arguments.policy is None:
        if arguments.segment:
            raise UserError("--segment: goes with --policy, which tells segments apart")
        if not wish:
            return Chosen(predictor.weights(None)[None], [])
        return Chosen(parse_preferences(wish, len(predictor.tasks)).astype(np.float32), [])
    predictor.require_preference("--policy")
    policy = read_policy(arguments.policy, predictor.tasks)
    named = not wish or wish in policy.preferences
    wishes = [wish or None] if named else list(parse_preferences(wish, len(predictor.tasks)))
    if not wish and len(outcomes := policy.outcomes(arguments.segment)) > 1:
        names = " and ".join(str(outcome.name) for outcome in outcomes)
        raise UserError(
            f"{policy.path}: {outcomes[0].reason} draws between {names}, for each request; a file "
            "is scored under one of them: name it by --preference"
        )
    decisions = [policy.decide(each, arguments.segment) for each in wishes]
    lines = []
    for decision in decisions:
        told = policy.told(decision, predictor.identity)
        weights = ",".join(f"{weight:.4g}" for weight in decision.weights)
        lines.append(
            f"policy {told['name']} {told['version']}: {decision.name or 'own'} {weights} "
            f"({decision.reason}), model {told['model']}"
        )
    return Chosen(np.stack([one.weights for one in decisions]).astype(np.float32), lines)
