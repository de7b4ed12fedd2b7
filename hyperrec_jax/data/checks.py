"""What is suspicious about data that can be read: said in a line, never a reason to refuse it."""

import itertools
from collections.abc import Sequence

from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.split import Split
from hyperrec_jax.data.store import Store

HIGH_UNSEEN_SHARE = 0.2
"""From this share of rows on, values that training never saw are worth a warning."""

_FIELDS_TOLD = 8


def unseen_warnings(schema: Schema, unseen: Sequence[int], rows: int, where: str) -> list[str]:
    """Fields many of whose values training never saw, one line for each.

    Args:
      schema: Names the fields.
      unseen: Rows with such a value, for each field of ids: `Split.unseen` of a store,
        `Encoded.unseen` of rows that a model reads.
      rows: Number of rows.
      where: What the rows are, such as a file or a split.
    """
    lines = []
    for field, count in zip(schema.id_fields, unseen, strict=True):
        if not rows or count / rows < HIGH_UNSEEN_SHARE:
            continue
        seen, advice = "never saw", "if it should have, compare how the values are written"
        if field.min_count > 1:
            seen = f"saw fewer than {field.min_count} times, or never"
            advice = "if these are too many, prepare with a smaller min_count"
        lines.append(
            f"{where}: field {field.name!r}: {count / rows:.1%} of {rows:,} rows have a value that "
            f"training {seen}; {advice}"
        )
    return lines


def unseen_in_store(store: Store) -> list[str]:
    """`unseen_warnings` of the splits of a store; training rows may have rare values only."""
    lines = []
    for name in ("train", "validation", "test"):
        split = store.split(name)
        where = f"{store.path}, {name} split"
        lines += unseen_warnings(store.schema, split.unseen, len(split), where)
    return lines


def unseen_shares(schema: Schema, split: Split, name: str) -> str:
    """A line on the values of a split that have no id of their own, those of most rows first."""
    shares = {
        field.name: unseen / max(len(split), 1)
        for field, unseen in zip(schema.id_fields, split.unseen, strict=True)
        if unseen
    }
    told = sorted(shares, key=lambda field: -shares[field])[:_FIELDS_TOLD]
    text = ", ".join(f"{field} {shares[field]:.2%}" for field in told) or "none"
    if len(shares) > len(told):
        text += f", and {len(shares) - len(told)} fields with fewer"
    rare = ", or too rarely" if any(field.min_count > 1 for field in schema.id_fields) else ""
    return f"{name}: rows with a value that training never saw{rare}: {text}"


def first_outside_funnel(split: Split, goals: Sequence[int] | None = None) -> int | None:
    """The first label that is positive in a row where the label before it is not.

    Models of a funnel (`esmm`, `aitm`) read the labels as steps, each of which needs the step
    before: a purchase needs a click. Where this returns a position, the labels are in another
    order, or they are no funnel.

    Args:
      split: Rows of a store, such as those of training.
      goals: Positions of the goals that are steps, all by default.

    Returns:
      A position among them from 1 on, or None where every label keeps the order.
    """
    steps = range(len(split.positives)) if goals is None else goals
    for place, (before, label) in enumerate(itertools.pairwise(steps), start=1):
        if split.both_positive[before][label] < split.positives[label]:
            return place
    return None
