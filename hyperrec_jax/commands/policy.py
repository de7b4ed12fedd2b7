"""Checks and compares policies: `hyperrec policy check|diff FILE [FILE] --workdir DIR`.

    hyperrec policy check policy.yaml --workdir runs/own
    hyperrec policy diff policy.yaml new.yaml --workdir runs/own

`check` says whether a policy fits a model, and whom it gives which preference now. `diff` says for
whom, and from when on, the second policy gives other preferences than the first, and what that does
to the main metric of each goal: NDCG@10 of the lists where the data has lists. docs/operating.md
describes the file.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path

from hyperrec_jax.commands import cli
from hyperrec_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: a policy can't be read or does not fit, or there is no model.
    """
    parser = cli.new_parser("policy", __doc__, imports=True)
    parser.add_argument("action", choices=("check", "diff"), help="see above")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="policy.yaml")
    parser.add_argument(
        "--workdir",
        type=Path,
        required=True,
        help="folder of the run; for `check` also an exported model",
    )
    parser.add_argument("--at", help="day or time to begin at, 2026-11-27 (default: now)")
    parser.add_argument(
        "--split",
        default="test",
        choices=("validation", "test"),
        help="rows to measure on (default: %(default)s)",
    )
    parser.add_argument("--store", type=Path, help="data, if it has moved since training")
    arguments = parser.parse_args(argv)
    wanted = {"check": 1, "diff": 2}[arguments.action]
    if len(arguments.files) != wanted:
        raise UserError(
            f"policy {arguments.action}: give {wanted} FILE, not {len(arguments.files)}"
        )
    now = _time(arguments.at)
    # Here and not at the top: --help and a bad option answer before JAX is loaded.
    from hyperrec_jax.serving.policy_file import read_policy

    if arguments.action == "check":
        from hyperrec_jax.api.load import load_predictor

        predictor = load_predictor(arguments.workdir)
        predictor.require_preference("policy check")
        policy = read_policy(arguments.files[0], predictor.tasks)
        print(f"{policy.path}: version {policy.version} fits {predictor.identity}")
        for segment in (*policy.segments, None):
            whom = f"segment {segment}" if segment else "everyone else"
            for decision in policy.outcomes(segment, now):
                weights = ", ".join(
                    f"{goal} {weight:.4g}"
                    for goal, weight in zip(policy.goals, decision.weights, strict=True)
                )
                share = "" if decision.propensity == 1 else f"{decision.propensity:.3g} of it "
                print(f"  {whom}: {share}{decision.name} ({weights}), by {decision.reason}")
        return 0
    from hyperrec_jax.api.model import Model
    from hyperrec_jax.api.policies import policy_changes
    from hyperrec_jax.data.store import Store

    model = Model.load(arguments.workdir, Store.open(arguments.store) if arguments.store else None)
    before, after = (read_policy(path, model.goals) for path in arguments.files)
    changes = policy_changes(model, before, after, now=now, split=arguments.split)
    print(f"policy {before.version} -> {after.version}, on the {arguments.split} rows")
    for change in changes:
        print(change)
    for name in ("low", "high"):
        for goal, old, new in zip(
            model.goals, getattr(before, name), getattr(after, name), strict=True
        ):
            if old != new:
                bound = {"low": "least", "high": "greatest"}[name]
                print(f"{bound} weight of {goal} that may be asked for: {old:g} -> {new:g}")
    if before.fallback != after.fallback:
        print(f"fallback: {before.fallback or 'none'} -> {after.fallback or 'none'}")
    if not changes:
        print("the same preferences for everyone")
    return 0


def _time(text: str | None) -> datetime.datetime | None:
    """A day, from its beginning, or a time; UTC where it has no offset."""
    if text is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"--at {text}: is no day or time, as in 2026-11-27 or 2026-11-27T18:00"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
