"""From a config and a schema to a run: the one place that knows which option makes which part."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from hyperrec_jax import models
from hyperrec_jax.config.lists import ListTraining, gain_rates, resolve_lists
from hyperrec_jax.config.named import by_table, check_targets, names_of, with_vector_files
from hyperrec_jax.config.optimizer import create_optimizer
from hyperrec_jax.config.overrides import check_config
from hyperrec_jax.config.run import Config, Run
from hyperrec_jax.data.checks import first_outside_funnel
from hyperrec_jax.data.inputs import inputs_of
from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.split import Split
from hyperrec_jax.errors import UserError, suggestion
from hyperrec_jax.evaluation.selection import SCALARISED_NDCG, Selection
from hyperrec_jax.goals import RowGoal
from hyperrec_jax.goals.binary import Binary
from hyperrec_jax.goals.fairness import Fairness
from hyperrec_jax.models import MultiTaskModel
from hyperrec_jax.models.two_tower import TwoTower
from hyperrec_jax.parallel.exchange import Exchange
from hyperrec_jax.parallel.mesh import batch_part, make_mesh
from hyperrec_jax.preference import normalisation, objectives, sampling
from hyperrec_jax.preference.normalisation import Normaliser, constant_losses
from hyperrec_jax.preference.objectives import Objective

logger = logging.getLogger(__name__)


def resolve(config: Config, schema: Schema, training_rows: Split) -> Run:
    """Builds every part of a run, once, and checks that they fit each other.

    Nothing is written and no array is made: what refuses a run, refuses it here.

    Args:
      config: A nested dictionary with the sections of `config/defaults.py`.
      schema: Schema of the data.
      training_rows: Their number sets the length of the run, their labels the scale of the losses.

    Raises:
      UserError: an option is unknown or out of its range, or two of them do not fit each other.
    """
    check_config(config)
    config = with_vector_files(config)
    settings = config["train"]
    goals = create_goals(schema)
    model = create_model(config, schema)
    _check_kinds(config["model"]["name"], model, schema, goals)
    _check_towers(model, goals)
    _check_funnel(config["model"]["name"], model, schema, training_rows)
    objective = _objective(config, model)
    num_preferences = _num_preferences(settings, model, objective, schema.num_tasks)
    _check_rows_alone(settings, goals)
    normaliser = _normaliser(config, goals, training_rows, model, objective, num_preferences)
    sampler = sampling.create_sampler(
        config["sampler"]["name"], schema.num_tasks, **options(config["sampler"])
    )
    mesh = make_mesh(**config["mesh"])
    model = model.clone(exchange=Exchange(mesh))
    batch_size = min(settings["batch_size"], len(training_rows))
    if batch_size < settings["batch_size"]:
        logger.warning("batches of %d rows: the training split has no more", batch_size)
    batch_part(mesh, batch_size)  # refuses a batch that the devices can't share
    total_steps = settings["epochs"] * (len(training_rows) // max(batch_size, 1))
    optimizer_options = {k: v for k, v in config["optimizer"].items() if k != "lazy_rows"}
    init_key, step_key = jax.random.split(jax.random.key(config["seed"]))
    constants = None
    if settings["prior_bias"]:
        known = zip(goals, training_rows.statistics, strict=True)
        constants = tuple(goal.prior(statistics) for goal, statistics in known)
    lists = resolve_lists(config, training_rows, schema, model, mesh)
    if lists is not None:
        _check_list_goals(schema)
    selection = _selection(settings["select"], schema, goals, lists)
    scales = None if lists is None else lists.scales
    if lists is None and selection.of_lists:
        scales = gain_rates(training_rows, schema)
    return Run(
        config=_written_out(config, model, num_preferences, lists),
        schema=schema,
        model=model,
        objective=objective,
        normaliser=normaliser,
        sampler=sampler,
        selection=selection,
        num_preferences=num_preferences,
        preference_per_row=settings["preference_per_row"],
        optimizer=create_optimizer(
            **optimizer_options,
            total_steps=total_steps // model.accumulate_steps,
            accumulate_steps=model.accumulate_steps,
        ),
        mesh=mesh,
        batch_size=batch_size,
        total_steps=total_steps,
        goals=goals,
        constants=constants,
        init_key=init_key,
        step_key=step_key,
        lists=lists,
        list_scales=scales,
    )


def create_model(config: Config, schema: Schema) -> MultiTaskModel:
    """The model of a config for a schema; see `hyperrec_jax.models`.

    Raises:
      UserError: unknown model or option.
    """
    model = models.create_model(
        config["model"]["name"],
        field_sizes=schema.table_sizes,
        num_numerical=schema.num_numerical,
        num_tasks=schema.num_tasks,
        goal_outputs=tuple(goal.outputs for goal in create_goals(schema)),
        inputs=inputs_of(schema),
        names=names_of(schema),
        options=by_table(options(config["model"]), schema),
    )
    widths = {table: own.width for table, own in model.own_tables.items()}
    check_targets(widths, model.embedding_dim, schema)
    return model


def options(section: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a config section: all but its name, and but what is left to the default."""
    return {key: value for key, value in section.items() if key != "name" and value is not None}


def _check_kinds(
    name: str, model: MultiTaskModel, schema: Schema, goals: Sequence[RowGoal]
) -> None:
    """Whether the goals are what a model that computes with probabilities reads."""
    read = [field.name for field, goal in zip(schema.goals, goals, strict=True) if goal.outputs]
    partial = [field for field in schema.goals if field.where is not None and field.name in read]
    if model.funnel == "needed" and partial:
        raise UserError(
            f"model {name} multiplies the steps of a funnel itself, over all rows, and goal "
            f"'{partial[0].name}' has labels on the rows of {partial[0].where} only; prepare the "
            "data without its where, or take another model, such as pomoe or mmoe"
        )
    others = [goal for goal in goals if goal.outputs and not isinstance(goal, Binary)]
    if model.binary_only and others:
        raise UserError(
            f"model {name} computes with probabilities, and goal '{others[0].name}' is of kind "
            f"{others[0].kind}; take another model, such as pomoe or mmoe"
        )


def _check_towers(model: MultiTaskModel, goals: Sequence[RowGoal]) -> None:
    """Whether a model of two towers is told which fields are whose."""
    if not isinstance(model, TwoTower):
        return
    compared = next((goal for goal in goals if isinstance(goal, Fairness)), None)
    if compared is not None:
        raise UserError(
            f"model two_tower has a vector for each goal, and goal '{compared.name}' of fairness "
            "is none of single rows; take another model, such as film or pomoe"
        )
    known = () if model.names is None else model.names.fields
    for option in ("user_fields", "item_fields"):
        named = getattr(model, option)
        for name in named:
            if name not in known:
                raise UserError(f"model.{option}: no field {name!r}; {suggestion(name, known)}")
        if not named:
            raise UserError(
                f"model two_tower: name the fields of each tower, model.{option}="
                f"('...',); there are {', '.join(known)}"
            )


def _selection(
    text: str, schema: Schema, goals: Sequence[RowGoal], lists: ListTraining | None
) -> Selection:
    """What picks the epoch; the lists where they are trained and nothing else was asked for."""
    if lists is not None and text == "hypervolume":
        text = SCALARISED_NDCG
    return Selection.parse(text, goals, "train.select", lists=has_lists(schema))


def has_lists(schema: Schema) -> bool:
    """Whether lists can be measured: there are groups, and each row has a gain for each goal."""
    binary = all(goal.binary for goal in schema.goals)
    return bool(schema.group) and binary and schema.label_dtype == "uint8"


def _check_list_goals(schema: Schema) -> None:
    """Whether lists can be trained: their losses read a gain in every row."""
    other = next((goal for goal in schema.goals if not goal.binary), None)
    if other is not None:
        raise UserError(
            f"lists are trained for binary goals, and goal '{other.name}' is of kind {other.kind}; "
            "leave the options of list out"
        )
    if schema.label_dtype != "uint8" or schema.weight is not None:
        raise UserError(
            "lists are trained where every row has all labels and the same weight; leave the "
            "options of list out"
        )


def _check_funnel(name: str, model: MultiTaskModel, schema: Schema, training_rows: Split) -> None:
    """Whether the labels are steps of a funnel in their order, where the model takes them so."""
    read = [place for place, goal in enumerate(create_goals(schema)) if goal.outputs]
    outside = None if model.funnel == "no" else first_outside_funnel(training_rows, read)
    if outside is None:
        return
    before, after = schema.tasks[read[outside - 1]], schema.tasks[read[outside]]
    told = (
        f"model {name} takes its goals as steps, each of which needs the one before, and {after} "
        f"is positive in training rows where {before} is not"
    )
    if model.funnel == "needed":
        raise UserError(f"{told}; name the labels in the order of the funnel, or take model mmoe")
    logger.warning("%s", told)


def _objective_name(config: Config, model: MultiTaskModel) -> str:
    return config["objective"]["name"] or ("linear" if model.conditioned else "uniform")


def _normaliser_name(config: Config, model: MultiTaskModel) -> str:
    return config["normaliser"]["name"] or ("entropy" if model.conditioned else "none")


def _objective(config: Config, model: MultiTaskModel) -> Objective:
    name = _objective_name(config, model)
    objective = objectives.create_objective(name, **options(config["objective"]))
    if objective.conditioned and not model.conditioned and config["sampler"]["name"] != "fixed":
        raise UserError(
            f"objective {name} follows a preference and model {config['model']['name']} takes "
            "none; use objective.name=uniform, or sampler.name=fixed to train it for one preference"
        )
    return objective


def _num_preferences(
    settings: Config, model: MultiTaskModel, objective: Objective, num_goals: int
) -> int:
    """How many preferences a batch has; 1 where each row has its own instead."""
    count, per_row = settings["preferences"], settings["preference_per_row"]
    if per_row and count not in (None, 1):
        raise UserError(
            "train.preferences is a number per batch, and train.preference_per_row gives each row "
            "its own: set one"
        )
    if per_row and not objective.linear:
        raise UserError(
            "train.preference_per_row goes with objectives that are linear in the losses: a row's "
            "losses stand alone there"
        )
    if count is None:
        one = not model.conditioned or per_row or objective.needs_gram
        count = 1 if one else num_goals if objective.linear else 8
    if objective.needs_gram and (count > 1 or per_row):
        raise UserError(
            "an objective that compares gradients takes one preference per batch: "
            "train.preferences=1, without train.preference_per_row"
        )
    return count


def _check_rows_alone(settings: Config, goals: Sequence[RowGoal]) -> None:
    """Whether the losses of rows stand alone where each has a preference of its own."""
    compared = next((goal for goal in goals if isinstance(goal, Fairness)), None)
    if settings["preference_per_row"] and compared is not None:
        raise UserError(
            f"train.preference_per_row goes with goals whose rows stand alone, and goal "
            f"'{compared.name}' of fairness compares the rows of a batch; set "
            "train.preference_per_row=false"
        )


def _normaliser(
    config: Config,
    goals: Sequence[RowGoal],
    training_rows: Split,
    model: MultiTaskModel,
    objective: Objective,
    num_preferences: int,
) -> Normaliser:
    name = _normaliser_name(config, model)
    extra = {}
    if name == "entropy":
        extra["constant_losses"] = constant_losses(goals, training_rows.statistics)
    normaliser = normalisation.create_normaliser(
        name, len(goals), **options(config["normaliser"]), **extra
    )
    if normaliser.needs_several_preferences and objective.directed:
        raise UserError(
            f"normaliser {name} moves the origin of the losses with every batch, and the objective "
            "reads their direction from it: take normaliser.name=entropy or reference"
        )
    if normaliser.needs_several_preferences and num_preferences == 1:
        raise UserError(
            f"normaliser {name} compares the preferences of a batch: train.preferences=8, without "
            "train.preference_per_row"
        )
    return normaliser


def _written_out(
    config: Config, model: MultiTaskModel, num_preferences: int, lists: ListTraining | None
) -> Config:
    """The config with all that it leaves to defaults written out, so that a run outlives them."""
    full = {
        key: dict(section) if isinstance(section, Mapping) else section
        for key, section in config.items()
    }
    full["objective"]["name"] = objective = _objective_name(config, model)
    full["normaliser"]["name"] = normaliser = _normaliser_name(config, model)
    full["train"]["preferences"] = num_preferences
    if lists is not None:
        full["list"]["scales"] = tuple(lists.scales.tolist())
    sampler = config["sampler"]["name"]
    for section, known in (
        ("model", models.model_options(config["model"]["name"])),
        ("objective", objectives.OBJECTIVES.defaults(objective)),
        ("normaliser", normalisation.NORMALISERS.defaults(normaliser)),
        ("sampler", sampling.SAMPLERS.defaults(sampler)),
    ):
        given = full[section]
        given |= {
            key: value
            for key, value in known.items()
            if given.get(key) is None and value is not None
        }
    return full
