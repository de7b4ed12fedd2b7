"""From a config to a trained workdir, and from a workdir back to a model.

This is the one place that knows which part of the config makes which object.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hyperrec_jax import models
from hyperrec_jax import registry as factory
from hyperrec_jax.data.files import explain_write_errors
from hyperrec_jax.data.readers.resident import ResidentReader, is_resident
from hyperrec_jax.data.readers.rows import Reader, TrainingReader
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import fusion, metrics
from hyperrec_jax.evaluation import lists as ranking
from hyperrec_jax.evaluation.front import Front, Scores, evaluate_front, make_score_fn, score_split
from hyperrec_jax.parallel import mesh as sharding
from hyperrec_jax.parallel import processes
from hyperrec_jax.preference import normalisation, objectives
from hyperrec_jax.preference import sampling as preferences
from hyperrec_jax.preference.sampling import evaluation_grid
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.checkpoint import Checkpoints, Progress
from hyperrec_jax.training.lazy_tables import make_lazy_step
from hyperrec_jax.training.loop import LoopOptions, fit
from hyperrec_jax.training.state import TrainState, create_optimizer, init_state
from hyperrec_jax.training.step import Step, make_dispatch, make_train_step

logger = logging.getLogger(__name__)

Config = dict[str, Any]


def options(section: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a config section: all but its name, and but what is left to the default."""
    return {key: value for key, value in section.items() if key != "name" and value is not None}


def settle(config: Config, schema: Schema) -> Config:
    """The config with all that it leaves to defaults written out, so that a run outlives them.

    Args:
      config: A nested dictionary with the keys of `configs/base.py`.
      schema: Of the data.

    Raises:
      UserError: an option is bad.
    """
    model = create_model(config, schema)
    objective = _objective_name(config, model)
    settled = {
        key: dict(section) if isinstance(section, Mapping) else section
        for key, section in config.items()
    }
    settled["objective"]["name"] = objective
    settled["normaliser"]["name"] = normaliser = _normaliser_name(config, model)
    settled["train"]["rays"] = _rays(
        config["train"], model, _create_objective(config, model), schema.num_tasks
    )
    sampler = config["sampler"]["name"]
    for section, known in (
        ("model", models.model_options(config["model"]["name"])),
        ("objective", factory.defaults("objective", objectives.OBJECTIVES, objective)),
        ("normaliser", factory.defaults("normaliser", normalisation.NORMALISERS, normaliser)),
        ("sampler", factory.defaults("sampler", preferences.SAMPLERS, sampler)),
    ):
        given = settled[section]
        given |= {key: value for key, value in known.items() if given.get(key) is None}
    return settled


def create_model(config: Config, schema: Schema) -> Any:
    """The model of a config for a schema; see `hyperrec_jax.models`."""
    return models.create_model(
        config["model"]["name"],
        field_sizes=schema.field_sizes,
        num_numerical=schema.num_numerical,
        num_tasks=schema.num_tasks,
        options=options(config["model"]),
    )


def example_batch(schema: Schema, rows: int = 2) -> dict[str, jax.Array]:
    """Zeros in the shape of a batch, for shape inference."""
    return {
        "categorical": jnp.zeros((rows, len(schema.categorical)), jnp.int32),
        "numerical": jnp.zeros((rows, schema.num_numerical), jnp.float32),
        "labels": jnp.zeros((rows, schema.num_tasks), jnp.uint8),
    }


def evaluation_preferences(model: Any, num_tasks: int, num_rays: int) -> np.ndarray:
    """The grid for a conditioned model; one ray, which it ignores, for any other."""
    return preferences.evaluation_grid(num_tasks, num_rays if model.conditioned else 1)


@dataclasses.dataclass(frozen=True)
class Training:
    """What a config makes of a store: all that the loop needs.

    Attributes:
      model: A model of `hyperrec_jax.models`.
      mesh: Devices.
      reader: Batches by step.
      step: The pure step.
      make_step: `make_step(sampler) -> step`: the same with other rays.
      init: Makes the first state, in its shardings.
      template: Shapes and shardings of the state.
    """

    model: Any
    mesh: Mesh
    reader: Reader
    step: Step
    make_step: Callable[[preferences.Sampler], Step]
    init: Callable[[], TrainState]
    template: TrainState


def create_training(config: Config, store: Store) -> Training:
    """Builds the objects of a run.

    Args:
      config: A nested dictionary with the keys of `configs/base.py`.
      store: The data.

    Raises:
      UserError: an option is bad, or the store is too small.
    """
    settings, schema = config["train"], store.schema
    model = create_model(config, schema)
    objective = _create_objective(config, model)
    rays = _rays(settings, model, objective, schema.num_tasks)
    ray_per_row = settings["ray_per_row"]
    normaliser = _create_normaliser(config, store, model, objective, rays)
    sampler = preferences.create_sampler(
        config["sampler"]["name"], schema.num_tasks, **options(config["sampler"])
    )
    mesh = sharding.make_mesh(**config["mesh"])
    split = store.split("train")
    batch_size = min(settings["batch_size"], len(split))
    if batch_size < settings["batch_size"]:
        logger.warning("batches of %d rows: the training split has no more", batch_size)
    part = sharding.batch_part(mesh, batch_size)
    numerical_dtype = "bfloat16" if model.compute_dtype == "bfloat16" else "float32"
    reader: Reader
    if is_resident(config["data"]["resident"], split, numerical_dtype):
        reader = ResidentReader(split, batch_size, config["seed"], mesh, numerical_dtype)
    else:
        reader = TrainingReader(split, batch_size, config["seed"], *part)
    total_steps = settings["epochs"] * reader.steps_per_epoch
    optimizer_options = dict(config["optimizer"])
    lazy_rows = optimizer_options.pop("lazy_rows")
    optimizer = create_optimizer(
        **optimizer_options,
        total_steps=total_steps // model.accumulate_steps,
        accumulate_steps=model.accumulate_steps,
    )
    init_key, run_key = jax.random.split(jax.random.key(config["seed"]))

    def make_step(sampler: preferences.Sampler) -> Step:
        dense = functools.partial(
            make_train_step,
            optimizer=optimizer,
            objective=objective,
            normaliser=normaliser,
            sampler=sampler,
            key=run_key,
            rays=rays,
            ray_per_row=ray_per_row,
            total_steps=total_steps,
            skip_nonfinite=settings["skip_nonfinite"],
        )
        return make_lazy_step(dense, model, lazy_rows)

    create = functools.partial(
        init_state,
        model,
        optimizer,
        normaliser,
        objective,
        example_batch(schema),
        schema.num_tasks,
        init_key,
        np.array(split.positives) / len(split) if settings["prior_bias"] else None,
    )
    template = sharding.template(create, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, template)
    # Unoptimised: it runs once, and a compiler that optimises the draws takes longer than they do.
    fast_compile = {"xla_backend_optimization_level": 0}
    init = jax.jit(create, out_shardings=shardings, compiler_options=fast_compile)
    return Training(model, mesh, reader, make_step(sampler), make_step, init, template)


def _objective_name(config: Config, model: Any) -> str:
    return config["objective"]["name"] or ("linear" if model.conditioned else "uniform")


def _normaliser_name(config: Config, model: Any) -> str:
    return config["normaliser"]["name"] or ("entropy" if model.conditioned else "none")


def _create_objective(config: Config, model: Any) -> Any:
    name = _objective_name(config, model)
    objective = objectives.create_objective(name, **options(config["objective"]))
    if objective.conditioned and not model.conditioned and config["sampler"]["name"] != "fixed":
        raise UserError(
            f"objective {name} follows a preference and model {config['model']['name']} takes "
            "none; use --config.objective.name=uniform, or --config.sampler.name=fixed to train "
            "it for one preference"
        )
    return objective


def _rays(settings: Config, model: Any, objective: Any, num_tasks: int) -> int:
    """How many preferences a batch has; 1 where each row has its own instead."""
    rays, ray_per_row = settings["rays"], settings["ray_per_row"]
    if ray_per_row and rays not in (None, 1):
        raise UserError(
            "train.rays is a number a batch, and train.ray_per_row gives each row its own: set one"
        )
    if ray_per_row and not objective.linear:
        raise UserError(
            "train.ray_per_row goes with objectives that are linear in the losses: a row's losses "
            "stand alone there"
        )
    if rays is None:
        one = not model.conditioned or ray_per_row or objective.needs_gram
        rays = 1 if one else num_tasks if objective.linear else 8
    if objective.needs_gram and (rays > 1 or ray_per_row):
        raise UserError(
            "an objective that compares gradients takes one preference a batch: "
            "--config.train.rays=1, without --config.train.ray_per_row"
        )
    return rays


def _create_normaliser(config: Config, store: Store, model: Any, objective: Any, rays: int) -> Any:
    section = config["normaliser"]
    name = _normaliser_name(config, model)
    extra = {}
    if name == "entropy":
        split = store.split("train")
        # Half a row of each class more (Krichevsky and Trofimov 1981): a label of one class only
        # has a scale, too.
        extra["base_rates"] = (np.array(split.positives) + 0.5) / (len(split) + 1)
    normaliser = normalisation.create_normaliser(
        name, store.schema.num_tasks, **options(section), **extra
    )
    if normaliser.needs_rays and objective.directed:
        raise UserError(
            f"normaliser {name} moves the origin of the losses with every batch, and the objective "
            "reads their direction from it: --config.normaliser.name=entropy or reference"
        )
    if normaliser.needs_rays and rays == 1:
        raise UserError(
            f"normaliser {name} compares the rays of a batch: --config.train.rays=8, without "
            "--config.train.ray_per_row"
        )
    return normaliser


def train(config: Config, workdir: Path, store: Store | None = None) -> Progress:
    """Trains a config in a workdir, or goes on where a former call was stopped.

    Args:
      config: A nested dictionary with the keys of `configs/base.py`.
      workdir: The run's folder.
      store: An open store, in place of the one that `config.data.store` names.

    Raises:
      UserError, TrainingError, Preempted: see `training.loop.fit`.
    """
    store = store or Store.open(Path(config["data"]["store"]))
    config = settle(config, store.schema)
    settings = config["train"]
    training = create_training(config, store)
    processes.check_same({"config": repr(config), "store": store.fingerprint})
    with (
        workdirs.open_workdir(workdir, config, store.schema),
        explain_write_errors(workdir, "the last checkpoint is kept"),
    ):
        workdirs.keep_vocabulary(workdir, store.path / workdirs.VOCABULARY)
        score = make_score_fn(training.model)
        rays = evaluation_preferences(training.model, store.schema.num_tasks, settings["grid"])
        validation = store.split("validation")

        def validate(state: TrainState) -> dict[str, float]:
            scores = score_split(
                score,
                state.variables,
                validation,
                rays,
                training.mesh,
                batch_size=settings["batch_size"],
            )
            return _validation_record(
                evaluate_front(scores, "validation", store.schema.tasks, rays)
            )

        return fit(
            workdir,
            make_dispatch(
                training.step, jax.tree.map(lambda leaf: leaf.sharding, training.template)
            ),
            training.template,
            training.init,
            training.reader,
            training.mesh,
            validate,
            LoopOptions(
                epochs=settings["epochs"],
                patience=settings["patience"],
                steps_per_dispatch=settings["steps_per_dispatch"],
                checkpoint_every=settings["checkpoint_every"],
            ),
            tasks=store.schema.tasks,
            data_fingerprint=store.fingerprint,
        )


def _validation_record(front: Front) -> dict[str, float]:
    """The front as scalars; `value` selects the model."""
    if front.undefined_tasks:
        logger.warning(
            "the validation split holds one class only of %s: their AUC is undefined and stays "
            "out of the hypervolume",
            ", ".join(front.undefined_tasks),
        )
    record = {"value": front.hypervolume, "hypervolume": front.hypervolume}
    record["non_dominated_fraction"] = float(front.non_dominated.mean())
    return record | front.best()


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model, ready for any preference.

    Attributes:
      config: What it was trained with.
      schema: What it reads.
      model: The Flax module.
      variables: Its parameters and batch norm statistics.
      mesh: Devices.
      progress: Of the run at the selected state.
    """

    config: Config
    schema: Schema
    model: Any
    variables: Any
    mesh: Mesh
    progress: Progress

    def evaluate(
        self,
        store: Store,
        split: str = "test",
        preferences: np.ndarray | int = 25,
        *,
        resamples: int = 0,
        progress: bool = False,
    ) -> Front:
        """Metrics of a split under a grid of preferences; arguments and errors as in `score`."""
        return self.score(store, split, preferences, resamples=resamples, progress=progress)[0]

    def score(
        self,
        store: Store,
        split: str = "test",
        preferences: np.ndarray | int = 25,
        *,
        resamples: int = 0,
        progress: bool = False,
    ) -> tuple[Front, Scores]:
        """Scores a split under a grid of preferences.

        Args:
          store: Data with this model's schema.
          split: Name of the split.
          preferences: `[ray, task]`, or the number of preferences of the standard grid.
          resamples: Of the bootstrap over groups (over rows where there are none), at least 2; 0
            leaves intervals and the test for a trade-off out. 200 take 4 s for 200,000 rows, 25
            preferences and 2 tasks.
          progress: Whether to show a bar.

        Returns:
          The metrics, and the logits that they were made of.

        Raises:
          UserError: the store has another schema, or no such split.
        """
        if store.schema != self.schema:
            raise UserError(
                f"store {store.path}: its schema is not that of the model ({self.schema.source}); "
                "evaluate on the store that it was trained on"
            )
        if isinstance(preferences, int):
            preferences = evaluation_preferences(self.model, self.schema.num_tasks, preferences)
        rows = store.split(split)
        scores = score_split(
            make_score_fn(self.model),
            self.variables,
            rows,
            preferences,
            self.mesh,
            batch_size=self.config["train"]["batch_size"],
            progress=progress,
        )
        rays = preferences if self.model.conditioned else None
        samples = None
        if resamples:
            groups = rows.groups(0, len(rows)) if self.schema.group else None
            samples = metrics.bootstrap(
                scores.labels, scores.logits, groups=groups, resamples=resamples
            )
        return evaluate_front(scores, split, self.schema.tasks, rays, samples), scores

    def fit_fusion(self, store: Store, preferences: np.ndarray | None = None) -> fusion.Fusion:
        """Learns one score for all tasks on the validation rows; see `evaluation.fusion`.

        Args:
          store: Data with this model's schema; its description names a group.
          preferences: `[ray, task]`; None for the standard grid of 25.

        Raises:
          UserError: the data has no groups, or a task no list to learn from.
        """
        self._check_groups(store)
        rays = self._list_rays(preferences)
        rows = store.split("validation")
        scores = self.score(store, "validation", rays)[1]
        return fusion.fit_fusion(scores.labels, scores.logits, rows.groups(0, len(rows)), rays)

    def rank(
        self,
        store: Store,
        scores: Scores,
        split: str,
        preferences: np.ndarray | None,
        fused: fusion.Fusion | None = None,
    ) -> ranking.RankingFront:
        """One list a search for all tasks, under every preference.

        Args:
          store: The data that was scored; its description names a group.
          scores: From `score`, of the split.
          split: Name of the split.
          preferences: `[ray, task]`; None for a model that takes none, whose lists are then those
            of the standard grid of 25.
          fused: What scores a row, from `fit_fusion`. None ranks by the weighted sum of the
            log-odds, which are calibrated on the validation rows, for each preference anew.

        Raises:
          UserError: the data has no groups, or a task one class only among the validation rows.
        """
        self._check_groups(store)
        rays = self._list_rays(preferences)
        # A model that takes no preference gave one ray of logits for all lists.
        logits = np.broadcast_to(scores.logits, (len(rays), *scores.logits.shape[1:]))
        rows = store.split(split)
        if fused is None:
            held = self.score(store, "validation", rays)[1]
            calibrators = [ranking.fit_calibrator(held.labels, values) for values in held.logits]
            # One for all preferences where the model takes none.
            calibrators *= len(rays) // len(calibrators)
            lists = [
                ranking.fused_score(calibrator.apply(values), ray)
                for calibrator, values, ray in zip(calibrators, logits, rays, strict=True)
            ]
        else:
            lists = [fused.score(values, ray) for values, ray in zip(logits, rays, strict=True)]
        groups = rows.groups(0, len(rows))
        return ranking.ranking_front(scores.labels, np.stack(lists), groups, rays)

    def _list_rays(self, preferences: np.ndarray | None) -> np.ndarray:
        return evaluation_grid(self.schema.num_tasks, 25) if preferences is None else preferences

    def _check_groups(self, store: Store) -> None:
        if not self.schema.group:
            raise UserError(
                f"store {store.path}: no group column tells the searches apart; name one when "
                "preparing the data, or leave out --ranking"
            )


def load(workdir: Path) -> Trained:
    """The selected model of a workdir.

    Raises:
      UserError: there is none, or it can't be read.
    """
    config = workdirs.load_config(workdir)
    schema = workdirs.load_schema(workdir)
    model = create_model(config, schema)
    mesh = sharding.make_mesh()  # of this machine, whatever it was trained on

    def create() -> Any:
        preference = jnp.full((schema.num_tasks,), 1 / schema.num_tasks)
        variables = model.init(jax.random.key(0), example_batch(schema), preference, False)
        return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}

    template = sharding.template(create, mesh)
    restored = Checkpoints(workdir, read_only=True).restore_best(template)
    if restored is None:
        raise UserError(
            f"--workdir {workdir}: no model has been selected yet; let train.py finish an epoch"
        )
    variables, progress = restored
    return Trained(config, schema, model, variables, mesh, progress)
