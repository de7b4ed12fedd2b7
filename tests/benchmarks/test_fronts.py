"""The table of fronts, on tiny data: trained, read again, and with its oracle."""

import dataclasses
import shutil

import numpy as np
import pytest

from benchmarks import fronts
from hyperrec_jax.commands import prepare
from hyperrec_jax.config.resolve import create_model
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation import metrics
from hyperrec_jax.evaluation.outputs import Scores
from tests.conftest import TINY_MODEL

pytestmark = pytest.mark.slow

ROWS = ("--rows", "3000", "--test-rows", "1000")


@pytest.fixture
def tiny(monkeypatch):
    dataset = dataclasses.replace(
        fronts.DATASETS["synthetic_medium"],
        arguments=("synthetic", *ROWS),
        trunk=TINY_MODEL | {"model.num_experts": 2},
        oracle_preferences=3,
    )
    monkeypatch.setattr(fronts, "DATASETS", {"synthetic_medium": dataset})
    monkeypatch.setattr(fronts, "GRID", 5)
    monkeypatch.setattr(fronts, "RESAMPLES", 20)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fronts") / "store"
    assert prepare.main(["synthetic", *ROWS, "--output", str(folder)]) == 0
    return Store.open(folder)


def _write_results(folder, store):
    """A front that obeys, a point in its middle, and the oracle, of two seeds."""
    labels = store.split("test").slice(0, 1000)["labels"].T.astype(np.float32)
    noise = np.random.default_rng(0).normal(size=labels.shape)

    def logits(quality):
        return (np.array(quality)[..., None] * labels - 2 + noise).astype(np.float32)

    front = [(1 + 0.2 * k, 2 - 0.2 * k) for k in range(4, -1, -1)]
    for seed in range(2):
        for name, values in (("default", front), ("plain", [(1.3, 1.3)])):
            where = folder / name / str(seed)
            where.mkdir(parents=True)
            tables = {
                key: Scores(logits(values), labels).table(metric)
                for key, metric in (("log_loss", metrics.log_loss), ("auc", metrics.auc))
            }
            np.savez(where / "result.npz", **tables, logits=logits(values), share=0.25)
            (folder / name / "time.json").write_text('{"ratio": 1.07}')
        np.save(folder / f"oracle_{seed}.npy", logits(front[::2]))


def test_the_table_compares_every_variant_with_the_oracle(tiny, store, tmp_path):
    shutil.copytree(store.path, tmp_path / "stores" / "synthetic_medium")
    _write_results(tmp_path / "synthetic_medium", store)
    results = tmp_path / "fronts.md"
    arguments = ["--seeds", "2", "--variants", "default", "--output", str(tmp_path)]
    assert fronts.main([*arguments, "--results", str(results)]) == 0
    text = results.read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in row] for row in rows]
    columns = [dict(zip(header, row, strict=True)) for row in rows]
    oracle, plain, default = columns
    assert [row["variant"] for row in columns] == ["oracle, 3 models", "plain", "default"]
    assert default["Spearman"] == "-1.0000"
    assert default["non-dominated, AUC"] == default["log loss"] == "1.0000"
    assert default["covered"] == oracle["covered"] == "1.0000"
    assert float(default["% of oracle"].split("%")[0]) >= 100  # the same ends, more between them
    assert float(plain["% of oracle"].split("%")[0]) < 80
    assert (plain["Spearman"], plain["covered"]) == ("-", "0.0000")
    assert (default["time"], default["share"]) == ("1.07", "25.0%")
    assert "The goals trade off. Span of the oracle's log loss: click" in text
    assert results.with_suffix(".png").stat().st_size > 1000


def test_a_variant_is_trained_once(tiny, store, tmp_path, monkeypatch):
    first = fronts.run("default", "synthetic_medium", 0, store, tmp_path / "0")
    assert first.logits.shape == (5, 2, 1000)
    assert 0 < first.share < 1
    monkeypatch.setattr(fronts.runner, "train", None)
    again = fronts.run("default", "synthetic_medium", 0, store, tmp_path / "0")
    np.testing.assert_array_equal(first.log_loss, again.log_loss)


def test_models_of_the_oracle_differ_by_their_preference(tiny, store, tmp_path):
    logits = fronts.oracle("synthetic_medium", 1, store, tmp_path)
    assert logits.shape == (3, 2, 1000)
    labels = store.split("test").slice(0, 1000)["labels"].T
    losses = Scores(logits, labels).table(metrics.log_loss)
    assert len(np.unique(losses.round(6), axis=0)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variants", "nothing"], "no variant 'nothing'"),
        (["--datasets", "nothing"], "no data set 'nothing'"),
        (["--seeds", "1"], "at least 2"),
        (["--datasets", "census"], "--data is missing"),
    ],
)
def test_wrong_arguments_are_told(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message):
        fronts.main(["--output", str(tmp_path), *arguments])


@pytest.mark.parametrize("name", fronts.VARIANTS)
def test_every_variant_is_a_config_that_its_model_takes(name, small_store):
    for dataset in fronts.DATASETS.values():
        config = fronts.make_config(fronts.VARIANTS[name], dataset.trunk, 0)
        model = create_model(config, small_store.schema)
        assert model.embedding_dim == dataset.trunk.get("model.embedding_dim", 128)
