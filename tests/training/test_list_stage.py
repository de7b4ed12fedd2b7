"""The second stage of a run: what it computes, what it refuses, and that it resumes."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.list_value import list_value
from hyperrec_jax.preference.grid import evaluation_grid
from hyperrec_jax.preference.list_losses import lambda_ndcg
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.averaging import with_average
from hyperrec_jax.training.checkpoint import Checkpoints, Progress
from hyperrec_jax.training.hooks import Validation
from hyperrec_jax.training.list_loss import list_loss
from hyperrec_jax.training.log import MetricsLog, read_metrics
from hyperrec_jax.training.state import first_state, state_template
from hyperrec_jax.training.train import train
from hyperrec_jax.training.trained import load_trained
from tests.conftest import tiny_config, write_own_data

pytestmark = pytest.mark.slow

LISTS = {
    "model.name": "film",
    "sampler.name": "fixed",
    "list.loss": "lambda_ndcg",
    "list.epochs": 2,
    "list.batch_size": 256,
    "list.learning_rate": 1e-2,
    "list.prediction_weight": 3.0,
    "list.cutoff": 3,
}


def _config(store, **overrides):
    return tiny_config(store, **LISTS, **overrides)


@pytest.fixture(scope="module")
def whole_run(small_store, tmp_path_factory):
    """Both stages without disturbance."""
    workdir = tmp_path_factory.mktemp("whole")
    train(_config(small_store), workdir, small_store)
    return workdir


@pytest.fixture(scope="module")
def first_stage(small_store, tmp_path_factory):
    """The first stage alone."""
    workdir = tmp_path_factory.mktemp("first")
    progress = train(_config(small_store, list__epochs=0), workdir, small_store)
    assert progress.list_step is None
    return workdir


def _latest(config, store, workdir):
    run = resolve(config, store.schema, store.split("train"))
    return Checkpoints(workdir, read_only=True).restore_latest(state_template(run))


def test_the_log_has_both_stages_and_the_best_of_all_epochs_is_kept(small_store, whole_run):
    records = [r for r in read_metrics(whole_run) if r["kind"] == "validation"]
    assert [r["epoch"] for r in records] == [1, 2, 3, 4]
    _, progress = _latest(_config(small_store), small_store, whole_run)
    assert progress.finished
    assert progress.list_epoch == 2
    assert progress.best_value == max(r["value"] for r in records)
    trained = load_trained(whole_run)
    lists = resolve(trained.config, small_store.schema, small_store.split("train")).lists
    rows = small_store.split("validation")
    grid = evaluation_grid(2, trained.config["train"]["grid"])
    scores = trained.score(small_store, "validation", grid)[1]
    groups = rows.groups(0, len(rows))
    found = list_value(scores.logits, scores.labels, groups, grid, lists.scales, 3)
    assert found.value == pytest.approx(progress.best_value, abs=1e-6)


def test_the_first_stage_at_equal_weights_is_the_formula(
    small_store, whole_run, first_stage, tmp_path
):
    """Equal weights alone leave a film model without preference; its epochs are those of 0."""
    first = [r["value"] for r in read_metrics(first_stage) if r["kind"] == "validation"]
    whole = [r["value"] for r in read_metrics(whole_run) if r["kind"] == "validation"]
    assert first == whole[:2]
    logits = load_trained(first_stage).score(small_store, "test", 5)[1].logits
    np.testing.assert_array_equal(logits, np.broadcast_to(logits[:1], logits.shape))
    moved = load_trained(whole_run).score(small_store, "test", 5)[1].logits
    if max(whole[2:]) > max(whole[:2]):
        assert np.abs(moved - moved[:1]).max() > 1e-3
    # More epochs of lists later end where both stages at once do.
    config = _config(small_store)
    shutil.copytree(first_stage, tmp_path, dirs_exist_ok=True)
    train(config, tmp_path, small_store)
    _assert_same(
        _latest(config, small_store, tmp_path)[0],
        _latest(_config(small_store), small_store, whole_run)[0],
    )


@pytest.mark.parametrize(
    "kill_at", ["before the first step of lists", "in mid-epoch", "at its end"]
)
def test_a_run_killed_in_the_second_stage_ends_in_the_same_parameters(
    small_store, whole_run, first_stage, tmp_path, monkeypatch, kill_at
):
    shutil.copytree(first_stage, tmp_path, dirs_exist_ok=True)
    config = _config(small_store, train__checkpoint_every=4)
    stage_step = _latest(_config(small_store), small_store, whole_run)[1].list_step

    class KilledError(Exception):
        pass

    def killed(self, step, kind, values):
        late = step > stage_step + (4 if kill_at == "in mid-epoch" else 0)
        if late and (kind == "validation" or kill_at != "at its end"):
            raise KilledError
        return log_write(self, step, kind, values)

    log_write = MetricsLog.write
    monkeypatch.setattr(MetricsLog, "write", killed)
    with pytest.raises(KilledError):
        train(config, tmp_path, small_store)
    monkeypatch.undo()
    assert train(config, tmp_path, small_store).finished
    state, progress = _latest(config, small_store, tmp_path)
    expected, expected_progress = _latest(_config(small_store), small_store, whole_run)
    _assert_same(state, expected)
    assert progress == expected_progress
    seen = [(r["step"], r["kind"]) for r in read_metrics(tmp_path)]
    assert len(seen) == len(set(seen))


def _assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def _list_loss(run, params, state, batch, key):
    """The loss of a batch and the prediction losses of the goals, compiled."""

    @jax.jit
    def compiled(params, state, batch, key):
        loss, forward = list_loss(run, params, state, batch, key)
        return loss, forward.losses

    return compiled(params, state, batch, key)


@pytest.mark.parametrize("name", ["film", "pomoe", "sharedbottom"])
def test_loss_of_a_batch_written_out_plainly(small_store, name):
    config = _config(small_store, model__name=name, model__norm="layer")
    config["sampler"]["name"] = "stratified"
    run = resolve(config, small_store.schema, small_store.split("train"))
    state = first_state(run)
    noise = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * noise.normal(size=leaf.shape).astype(np.float32), state.params
    )
    batch = {k: jnp.asarray(v[0]) for k, v in run.lists.reader.read(0, 1).items()}
    key = jax.random.key(3)
    loss, losses = _list_loss(run, params, state, batch, key)

    @jax.jit
    def all_logits(preference):
        rows = {name: batch[name] for name in ("categorical", "numerical")}
        variables = {"params": params, "batch_stats": {}}
        return run.model.apply(variables, rows, preference, False)

    lists = run.lists.reader.lists_per_batch
    preferences = run.lists.sampler(key, lists, 0.0)
    ranking, entropy, rows = [], np.zeros(2), 0

    @jax.jit
    def ranking_loss(scores, labels, preference):
        return lambda_ndcg(scores[None], labels[None], jnp.ones((1, len(scores))), preference, k=3)[
            0
        ]

    for index in range(lists):
        chosen = np.flatnonzero(np.asarray(batch["list_index"]) == index)
        if not len(chosen):
            continue
        logits = np.asarray(all_logits(preferences[index]))[chosen]
        labels = np.asarray(batch["labels"])[chosen].astype(np.float32)
        entropy += (np.logaddexp(0, logits) - labels * logits).sum(0)
        rows += len(chosen)
        scores = np.log((np.asarray(preferences[index]) * expit(logits) / run.lists.scales).sum(-1))
        if labels.any():
            ranking.append(ranking_loss(scores, labels, preferences[index]))
    positives = np.array(small_store.split("train").positives)
    rates = (positives + 0.5) / (len(small_store.split("train")) + 1)
    constant = -rates * np.log(rates) - (1 - rates) * np.log1p(-rates)
    expected = np.mean(ranking) + 3 * (entropy / rows / constant).mean()
    np.testing.assert_allclose(loss, expected, rtol=2e-4)
    np.testing.assert_allclose(losses[0], entropy / rows, rtol=2e-4)


def test_padding_changes_no_loss(small_store):
    """Not even through batch norm, since the running statistics alone normalise."""
    run = resolve(_config(small_store), small_store.schema, small_store.split("train"))
    state = first_state(run)
    batch = {k: jnp.asarray(v[0]) for k, v in run.lists.reader.read(0, 1).items()}
    padding = batch["mask"] == 0
    assert padding.any()
    other = batch | {
        "numerical": jnp.where(padding[:, None], 7.0, batch["numerical"]),
        "labels": jnp.where(padding[:, None], 1, batch["labels"]),
    }
    key = jax.random.key(0)
    loss = jax.jit(lambda batch: list_loss(run, state.params, state, batch, key)[0])
    np.testing.assert_array_equal(loss(other), loss(batch))


def test_the_running_mean_is_what_is_measured_and_kept(small_store):
    run = resolve(_config(small_store), small_store.schema, small_store.split("train"))
    run = dataclasses.replace(run, average=0.75)
    start = {"params": {"w": np.ones(2)}, "average": {"w": np.full(2, 5.0)}}
    state = first_state(run).replace(**start)

    def step(run, state, batch):
        return state.replace(step=state.step + 1, params={"w": state.params["w"] + batch}), None

    for amount in (1.0, 2.0):  # parameters 2, then 4
        state, _ = with_average(step, run)(run, state, amount)
    np.testing.assert_allclose(state.average["w"], 0.75 * (0.75 * 5 + 0.25 * 2) + 0.25 * 4)
    kept = {}

    class Kept:
        def save_best(self, variables, step, progress):
            kept.update(variables)

        def write(self, *record):
            pass

    def validate(state):
        return {"value": float(state.params["w"][0])}

    progress = Progress(data_fingerprint="")
    Validation(validate, Kept(), Kept(), run).epoch_ended(state, progress)
    assert progress.best_value == pytest.approx(4.1875)
    np.testing.assert_array_equal(kept["params"]["w"], state.average["w"])
    assert with_average(step, dataclasses.replace(run, average=0.0)) is step


def test_list_value_of_lists_by_hand():
    logits = np.log(np.array([[[0.5, 0.25, 0.125], [0.1, 0.2, 0.4]]]))
    logits = logits - np.log1p(-np.exp(logits))
    gains = np.array([[1, 0, 0], [0, 0, 1]], np.uint8)
    grid = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = list_value(logits, gains, np.zeros(3, int), grid, np.array([0.5, 0.5]), 2)
    np.testing.assert_allclose(found.ndcg, [[1, 0], [0, 1]])
    assert found.value == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"list__loss": "pairs"}, r"list\.loss is 'pairs': give one of none, lambda_ndcg"),
        ({"list__epochs": -1}, r"list\.epochs is -1: give"),
        ({"list__prediction_weight": -1.0}, r"list\.prediction_weight is -1\.0: give"),
        ({"list__scales": (1.0,)}, r"list\.scales=\(1\.0,\): give one for each of the goals click"),
        ({"list__batch_size": 4}, "lists of up to 5 rows do not fit into a batch of 4"),
        ({"model__name": "metaheac"}, "model metaheac trains on halves of a batch"),
    ],
)
def test_refusals_come_before_anything_is_written(small_store, tmp_path, overrides, message):
    flat = {key.replace(".", "__"): value for key, value in LISTS.items()} | overrides
    with pytest.raises(UserError, match=message):
        train(tiny_config(small_store, **flat), tmp_path / "run", small_store)
    assert not (tmp_path / "run").exists()


def test_data_without_lists_is_refused(tmp_path):
    description = write_own_data(tmp_path)
    description.write_text(description.read_text().replace("group: session\n", ""))
    store = prepare_store(csv_source(description), tmp_path / "store", 0.1)
    with pytest.raises(UserError, match="does not say which rows are ranked together"):
        train(_config(store), tmp_path / "run", store)


def test_the_config_of_a_run_tells_the_scales(small_store, whole_run, trained_run):
    split = small_store.split("train")
    scales = json.loads((whole_run / "config.json").read_text())["list"]["scales"]
    np.testing.assert_allclose(scales, np.array(split.positives) / len(split), rtol=1e-6)
    assert workdirs.load_config(trained_run)["list"]["scales"] is None
