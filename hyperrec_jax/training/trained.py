"""A trained model: read from a workdir, scored over a grid of preferences."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hyperrec_jax.config.resolve import create_model
from hyperrec_jax.config.run import Config
from hyperrec_jax.data.labels import create_goals
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.split import Split
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import fusion
from hyperrec_jax.evaluation.front import Front, evaluate_front
from hyperrec_jax.evaluation.grid import grid_for, place_of_centre
from hyperrec_jax.evaluation.list_front import ListFront, Lists, list_front
from hyperrec_jax.evaluation.list_scorer import (
    At,
    ListScorer,
    centre,
    scorer_scores,
)
from hyperrec_jax.evaluation.marginal_gain import (
    MARGINAL_GAIN,
    list_fusion,
    marginal_gain,
    wanted_fusions,
)
from hyperrec_jax.evaluation.outputs import ScoreFn, Scores, make_score_fn, score_split
from hyperrec_jax.evaluation.prediction_calibrator import PredictionCalibrator
from hyperrec_jax.evaluation.varied import varied_rows
from hyperrec_jax.models import MultiTaskModel
from hyperrec_jax.parallel import mesh as sharding
from hyperrec_jax.parallel.exchange import Exchange
from hyperrec_jax.preference.grid import evaluation_grid
from hyperrec_jax.training import fit_scorer
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.checkpoint import Checkpoints, Progress
from hyperrec_jax.training.fit_calibrator import kept_calibrator
from hyperrec_jax.training.state import example_batch


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model, ready for any preference.

    Attributes:
      config: What it was trained with.
      schema: What it reads.
      network: The Flax module.
      variables: Its parameters and batch norm statistics.
      mesh: Devices.
      progress: Progress of the run at the selected state.
      folder: The run's folder.
      compiled: A score function of the network that is compiled already, if there is one.
    """

    config: Config
    schema: Schema
    network: MultiTaskModel
    variables: dict[str, Any]
    mesh: Mesh
    progress: Progress
    folder: Path
    compiled: ScoreFn | None = None

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
          preferences: `[preference, goal]`, or the number of preferences of the standard grid.
          resamples: Number of bootstrap resamples over groups (over rows where there are none), at
            least 2; 0 leaves intervals and the test for a trade-off out. 200 take 4 s for 200,000
            rows, 25 preferences and 2 goals.
          progress: Whether to show a bar.

        Returns:
          The metrics, and the logits that they were made of.

        Raises:
          UserError: the store has another schema or vocabulary, or no such split.
        """
        if isinstance(preferences, int):
            conditioned = self.network.conditioned
            preferences = grid_for(conditioned, self.schema.num_tasks, preferences)
        scores = self.score_rows(store, split, preferences, progress=progress)
        rows = store.split(split)
        grid = preferences if self.network.conditioned else None
        front = evaluate_front(
            scores,
            split,
            self.schema.tasks,
            grid,
            goals=create_goals(self.schema),
            resamples=resamples,
            groups=self._groups(rows) if resamples else None,
        )
        return front, scores

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

    def check_store(self, store: Store) -> None:
        """Whether the rows of a store are what this model reads.

        Raises:
          UserError: they are not.
        """
        workdirs.check_store(self.folder, store)

    def score_rows(
        self, store: Store, split: str, preferences: np.ndarray, *, progress: bool = False
    ) -> Scores:
        """Outputs for a split under some preferences `[preference, goal]`, without metrics.

        Raises:
          UserError: the store has another schema or vocabulary, or no such split.
        """
        self.check_store(store)
        scores = score_split(
            self._score_fn,
            self.variables,
            store.split(split),
            preferences,
            self.mesh,
            batch_size=self.config["train"]["batch_size"],
            progress=progress,
        )
        if self.calibrator is None:
            return scores
        grid = np.asarray(preferences)[: len(scores.logits)]  # one, if the model takes none
        calibrated = self.calibrator.apply_by_output(scores.logits, grid)
        return dataclasses.replace(scores, calibrated=calibrated)

    @functools.cached_property
    def calibrator(self) -> PredictionCalibrator | None:
        """What calibrates its predictions; None where they are the model's own."""
        return kept_calibrator(self.folder, self.progress.best_step)

    @functools.cached_property
    def _score_fn(self) -> ScoreFn:
        """Kept, so that several passes compile it once for each number of preferences."""
        return self.compiled or make_score_fn(self.network)

    def list_scorer(self, store: Store | None = None) -> ListScorer:
        """What scores rows for lists: that of the run's folder, or one fitted now.

        Runs of earlier releases have none in their folder.

        Args:
          store: The data of the run, if it is open.

        Raises:
          UserError: there is none, and the data to fit it on is not there or has no positive.
        """
        kept = fit_scorer.kept_scorer(self.folder, self.progress.best_step)
        if kept is not None:
            return kept
        try:
            store = store or workdirs.open_store(self.config)
        except UserError as error:
            raise UserError(
                f"--workdir {self.folder}: has no {fit_scorer.LIST_SCORER}, and it can't be fitted "
                f"now: {error}"
            ) from error
        return fit_scorer.fit_scorer(self, store)

    def lists(
        self,
        store: Store,
        scores: Scores,
        split: str,
        preferences: np.ndarray | None,
        fusions: Sequence[str] | None = None,
        *,
        resamples: int = 0,
        scorer: ListScorer | None = None,
        keep_scores: bool = False,
    ) -> tuple[Lists, fusion.Fusion | None]:
        """One list per group for all goals, under every preference, by some fusions.

        Args:
          store: The data that was scored; its schema names a group.
          scores: From `score`, of the split.
          split: Name of the split.
          preferences: `[preference, goal]`, those of the scores where the model takes one; None for
            the standard grid of 25.
          fusions: Of `FUSIONS`, `marginal_gain` where variety is a goal, `learned` (a head
            fitted on the validation rows), or `all`: each in
            both ways of asking the model.
          resamples: Number of bootstrap resamples of whole lists; 0 for none.
          scorer: From `list_scorer`, if it is at hand.
          keep_scores: Whether the first front keeps what orders its rows.

        Returns:
          The lists, and what `learned` was scored by.

        Raises:
          UserError: the data has no groups, or nothing to fit a score on.
        """
        self.check_groups(store)
        grid = (
            evaluation_grid(self.schema.num_tasks, 25)
            if preferences is None
            else np.asarray(preferences)
        )
        scorer = scorer or self.list_scorer(store)
        middle = centre(self.schema.num_tasks)
        # A model that takes no preference gave the same logits for all lists.
        shape = (len(grid), *scores.logits.shape[1:])
        logits: dict[At, np.ndarray] = {"preference": np.broadcast_to(scores.logits, shape)}
        own = list_fusion(self.schema, scorer)
        wanted = wanted_fusions(fusions or (own,), scorer, self.network.conditioned, own)
        if not self.network.conditioned:
            logits["centre"] = logits["preference"]
        elif any(at == "centre" for _, at in wanted):
            place = place_of_centre(grid)
            central = (
                self.score_rows(store, split, middle[None]).logits
                if place is None
                else scores.logits[place : place + 1]
            )
            logits["centre"] = np.broadcast_to(central, shape)
        rows = store.split(split)
        groups, varied = rows.groups(0, len(rows)), varied_rows(self.schema, rows)
        fronts: list[ListFront] = []
        fused = None
        for name, at in wanted:
            if name == "learned":
                fused = self._fit_fusion(store, grid)
                scored = np.stack(
                    [
                        fused.score(values, chosen)
                        for values, chosen in zip(logits[at], grid, strict=True)
                    ]
                )
            elif name == MARGINAL_GAIN:
                scored = np.stack(
                    [
                        marginal_gain(scorer, values.T, chosen, varied, groups, at)
                        for values, chosen in zip(logits[at], grid, strict=True)
                    ]
                )
            else:
                scored = scorer_scores(scorer, logits[at], grid, name, at)
            fronts.append(
                list_front(
                    name,
                    at,
                    self.schema.tasks,
                    scores.labels,
                    scored,
                    groups,
                    grid,
                    resamples=resamples,
                    keep_scores=keep_scores and not fronts,
                    varied=varied,
                )
            )
        return Lists(tuple(fronts)), fused

    def check_groups(self, store: Store) -> None:
        """Whether the data says which rows are ranked together, and lists can be made of its goals.

        Raises:
          UserError: it does not, or a goal is not binary or has missing labels.
        """
        other = next((goal for goal in self.schema.goals if not goal.binary), None)
        if other is not None:
            raise UserError(
                f"store {store.path}: goal '{other.name}' is of kind {other.kind}, and lists are "
                "made of binary goals; leave the lists out"
            )
        if store.schema.label_dtype != "uint8":
            raise UserError(
                f"store {store.path}: labels are missing in some rows, and lists are measured "
                "where every row has all labels; leave the lists out"
            )
        if not self.schema.group:
            raise UserError(
                f"store {store.path}: no group column tells which rows are ranked together; name "
                "one when preparing the data, or leave the lists out"
            )

    def _fit_fusion(self, store: Store, grid: np.ndarray) -> fusion.Fusion:
        """Learns one score for all goals on the validation rows; see `evaluation.fusion`."""
        rows = store.split("validation")
        held = self.score_rows(store, "validation", grid)
        return fusion.fit_fusion(
            held.labels, held.logits, rows.groups(0, len(rows)), grid, goals=self.schema.tasks
        )

    def _groups(self, rows: Split) -> np.ndarray | None:
        return rows.groups(0, len(rows)) if self.schema.group else None


def load_trained(workdir: Path) -> Trained:
    """The selected model of a workdir.

    Raises:
      UserError: there is none, or it can't be read.
    """
    config = workdirs.load_config(workdir)
    schema = workdirs.load_schema(workdir)
    mesh = sharding.make_mesh()  # of this machine, whatever it was trained on
    network = create_model(config, schema).clone(exchange=Exchange(mesh))

    def create() -> Any:
        preference = jnp.full((schema.num_tasks,), 1 / schema.num_tasks)
        variables = network.init(jax.random.key(0), example_batch(schema), preference, False)
        return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}

    template = sharding.template(create, mesh)
    restored = Checkpoints(workdir, read_only=True).restore_best(template)
    if restored is None:
        raise UserError(
            f"--workdir {workdir}: no model has been selected yet; let training finish an epoch"
        )
    variables, progress = restored
    return Trained(config, schema, network, variables, mesh, progress, workdir)
