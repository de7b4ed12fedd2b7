"""A trained model: read from a workdir, scored over a grid of preferences."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hyperrec_jax.config.resolve import create_model
from hyperrec_jax.config.run import Config
from hyperrec_jax.data.schema import Schema
from hyperrec_jax.data.store import Split, Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import fusion, lists
from hyperrec_jax.evaluation.front import Front, evaluate_front
from hyperrec_jax.evaluation.scoring import Scores, make_score_fn, score_split
from hyperrec_jax.models import MultiTaskModel
from hyperrec_jax.parallel import mesh as sharding
from hyperrec_jax.preference.grid import evaluation_grid
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.checkpoint import Checkpoints, Progress
from hyperrec_jax.training.state import example_batch
from hyperrec_jax.training.train import grid_for


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
    """

    config: Config
    schema: Schema
    network: MultiTaskModel
    variables: Any
    mesh: Mesh
    progress: Progress
    folder: Path

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
        self.check_store(store)
        if isinstance(preferences, int):
            conditioned = self.network.conditioned
            preferences = grid_for(conditioned, self.schema.num_tasks, preferences)
        rows = store.split(split)
        scores = score_split(
            make_score_fn(self.network),
            self.variables,
            rows,
            preferences,
            self.mesh,
            batch_size=self.config["train"]["batch_size"],
            progress=progress,
        )
        grid = preferences if self.network.conditioned else None
        front = evaluate_front(
            scores,
            split,
            self.schema.tasks,
            grid,
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

    def fit_fusion(self, store: Store, preferences: np.ndarray | None = None) -> fusion.Fusion:
        """Learns one score for all goals on the validation rows; see `evaluation.fusion`.

        Args:
          store: Data with this model's schema; its description names a group.
          preferences: `[preference, goal]`; None for the standard grid of 25.

        Raises:
          UserError: the data has no groups, or a goal no list to learn from.
        """
        self.check_groups(store)
        grid = self._list_grid(preferences)
        rows = store.split("validation")
        scores = self.score(store, "validation", grid)[1]
        return fusion.fit_fusion(
            scores.labels,
            scores.logits,
            rows.groups(0, len(rows)),
            grid,
            goals=self.schema.tasks,
        )

    def list_front(
        self,
        store: Store,
        scores: Scores,
        split: str,
        preferences: np.ndarray | None,
        fused: fusion.Fusion | None = None,
    ) -> lists.RankingFront:
        """One list per group for all goals, under every preference.

        Args:
          store: The data that was scored; its description names a group.
          scores: From `score`, of the split.
          split: Name of the split.
          preferences: `[preference, goal]`; None for a model that takes none, whose lists are then
            those of the standard grid of 25.
          fused: What scores a row, from `fit_fusion`. None ranks by the weighted sum of the
            log-odds, which are calibrated on the validation rows, for each preference anew.

        Raises:
          UserError: the data has no groups, or a goal one class only among the validation rows.
        """
        self.check_groups(store)
        grid = self._list_grid(preferences)
        # A model that takes no preference gave the same logits for all lists.
        logits = np.broadcast_to(scores.logits, (len(grid), *scores.logits.shape[1:]))
        rows = store.split(split)
        if fused is None:
            held = self.score(store, "validation", grid)[1]
            calibrators = [
                lists.fit_calibrator(held.labels, values, goals=self.schema.tasks)
                for values in held.logits
            ]
            # One for all preferences where the model takes none.
            calibrators *= len(grid) // len(calibrators)
            scored = [
                lists.fused_score(calibrator.apply(values), preference)
                for calibrator, values, preference in zip(calibrators, logits, grid, strict=True)
            ]
        else:
            scored = [
                fused.score(values, chosen) for values, chosen in zip(logits, grid, strict=True)
            ]
        groups = rows.groups(0, len(rows))
        return lists.ranking_front(scores.labels, np.stack(scored), groups, grid)

    def check_groups(self, store: Store) -> None:
        """Whether the data says which rows are ranked together.

        Raises:
          UserError: it does not.
        """
        if not self.schema.group:
            raise UserError(
                f"store {store.path}: no group column tells which rows are ranked together; name "
                "one when preparing the data, or leave the lists out"
            )

    def check_ranking(self, store: Store) -> None:
        """Whether lists can be made and measured, before anything is scored.

        Raises:
          UserError: the store is not the model's, it has no groups, or a goal has labels of one
            class only among the validation rows, by which the scores are calibrated.
        """
        self.check_store(store)
        self.check_groups(store)
        rows = store.split("validation")
        for goal, positives in zip(self.schema.tasks, rows.positives, strict=True):
            if not 0 < positives < len(rows):
                raise UserError(
                    f"store {store.path}: goal {goal} has labels of one class only among the "
                    "validation rows, by which lists are calibrated; prepare the data with a "
                    "larger --validation-fraction, or leave out --ranking"
                )

    def _list_grid(self, preferences: np.ndarray | None) -> np.ndarray:
        return evaluation_grid(self.schema.num_tasks, 25) if preferences is None else preferences

    def _groups(self, rows: Split) -> np.ndarray | None:
        return rows.groups(0, len(rows)) if self.schema.group else None


def load_trained(workdir: Path) -> Trained:
    """The selected model of a workdir.

    Raises:
      UserError: there is none, or it can't be read.
    """
    config = workdirs.load_config(workdir)
    schema = workdirs.load_schema(workdir)
    network = create_model(config, schema)
    mesh = sharding.make_mesh()  # of this machine, whatever it was trained on

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
