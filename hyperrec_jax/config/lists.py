"""What a run does with lists: the second stage of its training, from the config section `list`."""

import dataclasses
from typing import Any

import numpy as np
import optax
from jax.sharding import Mesh

from hyperrec_jax.config.optimizer import create_optimizer
from hyperrec_jax.data.readers.lists import ListReader
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.split import Split
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.varied import VarietyGoal, variety_goals, variety_rates
from hyperrec_jax.models import MultiTaskModel
from hyperrec_jax.parallel.mesh import batch_part
from hyperrec_jax.preference.expected_gain import ListFusion
from hyperrec_jax.preference.list_losses import ListLoss, create_list_loss
from hyperrec_jax.preference.normalisation import entropy_scale
from hyperrec_jax.preference.sampling import Sampler, dirichlet

Config = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ListTraining:
    """The parts of the second stage; `resolve_lists` makes it.

    Attributes:
      loss: Scores, gains, mask and preferences into one loss for each list.
      score: What lists are ordered by, `expected_gain` or `log_odds`.
      prediction_weight: Weight of the goals' own losses beside it, at least 0.
      sampler: Draws one preference for each list.
      scales: Scale of each goal in the score, f32 `[goal]`.
      constant_losses: Loss of a constant prediction of each goal, nats `[goal]`: the unit in
        which the goals' own losses count.
      reader: Batches of whole lists by step.
      epochs: Passes over the lists; 0 trains none, and selects the model by its lists all the same.
      optimizer: Gradients into updates, with its schedule over the stage.
      total_steps: Batches of the stage.
      cutoff: Number of ranks that count, in the loss and in the selection.
      varied: The goals of whole lists.
      variety_weight: Weight of what a list falls short of them, at least 0.
      average: Weight of the old mean in the running mean of the parameters; 0 keeps none.
    """

    loss: ListLoss
    prediction_weight: float
    sampler: Sampler
    scales: np.ndarray
    constant_losses: np.ndarray
    reader: ListReader
    epochs: int
    optimizer: optax.GradientTransformation
    total_steps: int
    cutoff: int
    average: float
    score: ListFusion = "expected_gain"
    varied: tuple[VarietyGoal, ...] = ()
    variety_weight: float = 0.0

    @property
    def of_rows(self) -> np.ndarray:
        """1 for goals that single rows are worth something to, 0 for those of whole lists, f32
        `[goal]`."""
        of_rows = np.ones(len(self.scales), np.float32)
        of_rows[[goal.place for goal in self.varied]] = 0
        return of_rows


def resolve_lists(
    config: Config,
    rows: Split,
    schema: Schema,
    model: MultiTaskModel,
    mesh: Mesh,
) -> ListTraining | None:
    """The second stage of a run, or None where `list.loss` is "none".

    Args:
      config: A nested dictionary with the sections of `config/sections.py`, checked.
      rows: The training rows.
      schema: Its `group` says which rows are ranked together.
      model: The model.
      mesh: Devices.

    Raises:
      UserError: the data has no lists, a list does not fit into a batch, a goal has no positive, or
        the model cuts batches.
    """
    section, goals = config["list"], schema.tasks
    varied = variety_goals(schema)
    if section["loss"] == "none":
        return None
    if not schema.group:
        raise UserError(
            f"list.loss={section['loss']!r} and {rows.path} does not say which rows are ranked "
            "together: name a group column when preparing the data, or set list.loss=none"
        )
    if model.inner_learning_rate:
        raise UserError(
            f"model {config['model']['name']} trains on halves of a batch, and lists must stay "
            "whole: choose another model, or set list.loss=none"
        )
    scales = gain_rates(rows, schema)
    if given := section["scales"]:
        if len(given) != len(goals):
            raise UserError(
                f"list.scales={given}: give one for each of the goals {', '.join(goals)}"
            )
        scales = np.array(given, np.float32)
    reader = ListReader(
        rows,
        section["batch_size"],
        config["seed"],
        section["max_items"],
        "cut",
        *batch_part(mesh, section["batch_size"]),
    )
    steps = section["epochs"] * reader.steps_per_epoch
    return ListTraining(
        loss=create_list_loss(section["loss"], section["cutoff"]),
        prediction_weight=section["prediction_weight"],
        sampler=dirichlet(len(goals), concentration=section["concentration"]),
        scales=scales,
        # Half a row of each class more (Krichevsky and Trofimov 1981): never 0.
        constant_losses=entropy_scale((np.array(rows.positives) + 0.5) / (len(rows) + 1)),
        reader=reader,
        epochs=section["epochs"],
        optimizer=create_optimizer(
            section["learning_rate"],
            l2=config["optimizer"]["l2"],
            schedule=section["schedule"],
            total_steps=max(steps // model.accumulate_steps, 1),
            accumulate_steps=model.accumulate_steps,
        ),
        total_steps=steps,
        cutoff=section["cutoff"],
        average=section["average"],
        score=section["score"],
        varied=varied,
        variety_weight=section["variety_weight"],
    )


def gain_rates(rows: Split, schema: Schema) -> np.ndarray:
    """The mean gain of a row for each goal, f32 `[goal]`: what the score divides by.

    A calibrated model expects the same of an average row, so that such a row counts alike for all
    goals. For a goal of whole lists it is what an average row adds to them.

    Raises:
      UserError: a goal has no positive among the rows.
    """
    for goal, positives in zip(schema.tasks, rows.positives, strict=True):
        if not positives:
            raise UserError(
                f"{rows.path}: no row has a positive {goal}, so that no list can be ranked by it; "
                "leave the goal out, or prepare more rows"
            )
    rates = np.array(rows.positives) / len(rows)
    for place, rate in variety_rates(schema, rows).items():
        rates[place] = rate
    return rates.astype(np.float32)
