"""MLflow: a run of an experiment, at `MLFLOW_TRACKING_URI`."""

import os
from pathlib import Path
from typing import Any, ClassVar

from hyperrec_jax.training.trackers.base import TRACKERS, kept_name
from hyperrec_jax.training.workdir import flatten

_LONGEST_PARAMETER = 6000  # MLflow's own limit


@TRACKERS.register("mlflow")
class Mlflow:
    """A run with the config as parameters, metrics by step, and the files of evaluations.

    MLflow's own variables of the environment say where: `MLFLOW_TRACKING_URI`, and
    `MLFLOW_EXPERIMENT_NAME` (default hyperrec_jax).
    """

    extra: ClassVar[str] = "mlflow"

    def __init__(self, workdir: Path, config: dict[str, Any], step: int) -> None:
        from mlflow import MlflowClient

        self._client = client = MlflowClient()

        def create() -> str:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "hyperrec_jax")
            experiment = client.get_experiment_by_name(name)
            number = experiment.experiment_id if experiment else client.create_experiment(name)
            run = client.create_run(number, run_name=workdir.resolve().name)
            for key, value in flatten(config).items():
                client.log_param(run.info.run_id, key, str(value)[:_LONGEST_PARAMETER])
            return run.info.run_id

        self._run = kept_name(workdir, "mlflow", create)
        client.update_run(self._run, status="RUNNING")

    def scalars(self, step: int, kind: str, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(
                self._run,
                f"{kind}/{name.replace('@', '_at_')}",
                value,
                step=step,
                synchronous=False,
            )

    def file(self, step: int, kind: str, path: Path) -> None:
        self._client.log_artifact(self._run, str(path), artifact_path=kind)

    def close(self) -> None:
        from mlflow import flush_async_logging

        flush_async_logging()
        self._client.set_terminated(self._run)
