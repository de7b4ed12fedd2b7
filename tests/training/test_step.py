"""The step against the same mathematics written out plainly."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.parts import make_parts
from hyperrec_jax.errors import UserError
from hyperrec_jax.models import create_model, model_names
from hyperrec_jax.models.sharedbottom import SharedBottom
from hyperrec_jax.preference.normalisation import create_normaliser
from hyperrec_jax.preference.objectives import Objective
from hyperrec_jax.training.dispatch import make_dispatch, make_step
from hyperrec_jax.training.state import init_state
from tests.conftest import tiny_config

pytestmark = pytest.mark.slow


def _batches(training, count):
    return {k: jnp.asarray(v) for k, v in training.reader.read(0, count).items()}


def _first(batches):
    return {k: v[0] for k, v in batches.items()}


def test_plain_step_is_adam_on_the_objective(small_store):
    config = tiny_config(
        small_store, model__name="sharedbottom", model__dropout=0.0, optimizer__l2=1e-3
    )
    training = make_parts(config, small_store)
    state = training.init()
    batch = _first(_batches(training, 1))

    def loss(params):
        logits, _ = training.model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            batch,
            jnp.array([0.5, 0.5]),
            True,
            mutable=["batch_stats"],
        )
        labels = batch["labels"].astype(jnp.float32)
        return optax.sigmoid_binary_cross_entropy(logits, labels).mean()

    value, gradients = jax.jit(jax.value_and_grad(loss))(state.params)
    gradients = jax.tree.map(lambda g, p: g + 1e-3 * p, gradients, state.params)
    expected = jax.tree.map(  # Adam's first step is the sign of the gradient, nearly
        lambda p, g: p - 1e-3 * g / (jnp.abs(g) + 1e-8), state.params, gradients
    )
    new_state, metrics = jax.jit(training.step)(state, batch)
    np.testing.assert_allclose(metrics.loss, value, rtol=1e-5)
    np.testing.assert_allclose(metrics.goal_losses.mean(), value, rtol=1e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
        got = new_state.params
        for key in path:
            got = got[key.key]
        # Where a gradient is all but zero its sign is rounding.
        close = np.isclose(leaf, got, atol=2e-5)
        assert close.mean() > 0.99, path


def test_dispatch_is_the_step_repeated_with_other_rays_each_time(small_store):
    training = make_parts(tiny_config(small_store), small_store)
    batches = _batches(training, 3)
    first = training.init()
    state, step = first, jax.jit(training.step)
    for index in range(3):
        state, _ = step(state, {k: v[index] for k, v in batches.items()})
    dispatch = make_dispatch(training.step)
    scanned, metrics = dispatch(jax.tree.map(jnp.copy, first), batches)  # it is donated
    assert metrics.loss.shape == (3,)
    assert int(scanned.step) == 3
    for one, other in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(scanned.params), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert len(np.unique(metrics.preferences[:, 0, 0])) == 3
    np.testing.assert_allclose(metrics.preferences.sum(-1), 1, rtol=1e-5)
    _, again = dispatch(first, batches)
    np.testing.assert_array_equal(metrics.preferences, again.preferences)


OBJECTIVES = [
    ("linear", {"train__preferences": 4}),
    (
        "linear",
        {"model__name": "pomoe", "train__preference_per_row": True, "model__gate": "preference"},
    ),
    ("cosine_original", {}),
    ("smooth_chebyshev", {"train__preferences": 4, "normaliser__name": "running_scale"}),
    ("epo", {"train__preferences": 1}),
    ("hypervolume", {"train__preferences": 6, "normaliser__name": "entropy"}),
]
"""One of each kind: one preference, several, one per row, from gradients, over all at once."""


@pytest.mark.parametrize(("name", "options"), OBJECTIVES)
def test_conditioned_objectives_lower_the_losses(small_store, name, options):
    config = tiny_config(small_store, objective__name=name, **{"model__name": "film"} | options)
    _assert_learns(make_parts(config, small_store))


@pytest.mark.parametrize("name", ["mgda", "famo"])
def test_baselines_lower_the_losses(small_store, name):
    config = tiny_config(
        small_store, model__name="sharedbottom", objective__name=name, train__preferences=1
    )
    _assert_learns(make_parts(config, small_store))


def _assert_learns(training):
    dispatch = make_dispatch(training.step)
    batches = _batches(training, 10)
    state, metrics = dispatch(training.init(), batches)
    before = metrics.goal_losses[0].sum()
    for _ in range(2):
        state, metrics = dispatch(state, batches)
    assert jnp.isfinite(metrics.loss).all()
    assert metrics.goal_losses[-1].sum() < before


def test_meta_training_adapts_on_one_half_and_learns_on_the_other(small_store):
    config = tiny_config(
        small_store,
        model__name="metaheac",
        model__dropout=0.0,
        model__num_experts=2,
        model__num_critics=2,
        model__inner_learning_rate=0.5,
    )
    training = make_parts(config, small_store)
    state = training.init()
    batch = _first(_batches(training, 1))
    support = {k: v[:128] for k, v in batch.items()}
    query = {k: v[128:] for k, v in batch.items()}

    def loss(params, stats, rows):
        logits, updates = training.model.apply(
            {"params": params, "batch_stats": stats},
            rows,
            jnp.array([0.5, 0.5]),
            True,
            mutable=["batch_stats"],
        )
        labels = rows["labels"].astype(jnp.float32)
        losses = optax.sigmoid_binary_cross_entropy(logits, labels)
        return losses.mean(), updates["batch_stats"]

    @jax.jit
    def by_hand(params, stats):
        gradients, stats = jax.grad(loss, has_aux=True)(params, stats, support)
        adapted = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradients)
        return loss(adapted, stats, query)[0], loss(params, stats, query)[0]

    expected, unadapted = by_hand(state.params, state.batch_stats)
    step = jax.jit(training.step)
    new_state, metrics = step(state, batch)
    np.testing.assert_allclose(metrics.loss, expected, rtol=1e-5)
    assert abs(float(metrics.loss - unadapted)) > 1e-4
    # Two batches make one update.
    same = jax.tree.map(lambda a, b: bool((a == b).all()), state.params, new_state.params)
    assert all(jax.tree.leaves(same))
    newer_state, _ = step(new_state, batch)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), state.params, newer_state.params)
    assert not all(jax.tree.leaves(same))


SMALL = {"embedding_dim": 4, "bottom_widths": (8,), "tower_widths": (4,), "dropout": 0.0}
SHAPES = {"field_sizes": (5, 7), "num_numerical": 2, "num_tasks": 2}


def _small_batch():
    rng = np.random.default_rng(0)
    return {
        "categorical": jnp.asarray(rng.integers(0, 5, (32, 2))),
        "numerical": jnp.asarray(rng.normal(size=(32, 2)), jnp.float32),
        "labels": jnp.asarray(rng.random((32, 2)) < 0.4, jnp.uint8),
    }


def _gram_step(run, model, weights):
    """A step whose loss is the sum of the weighted gram; and its first state."""
    objective = Objective(
        lambda losses, preferences, gram, state: (weights * gram).sum(), needs_gram=True
    )
    run = dataclasses.replace(
        run,
        model=model,
        objective=objective,
        normaliser=create_normaliser("none", 2),
        sampler=lambda key, count, progress: jnp.full((count, 2), 0.5),
        num_preferences=1,
        optimizer=optax.sgd(0.0),
        constants=None,
    )
    return make_step(run), jax.jit(lambda: init_state(run))()


@pytest.fixture(scope="module")
def small_run(small_store):
    """A run on two fields and two numbers, whose parts tests replace."""
    return make_parts(tiny_config(small_store), small_store).run


def test_gradients_are_compared_at_the_experts_outputs(small_run):
    options = SMALL | {"num_experts": 3, "gate_dropout": 0.0}
    model = create_model("pomoe", options=options, **SHAPES)
    batch, weights = _small_batch(), jnp.array([[1.0, 2.0], [3.0, 4.0]])
    step, state = _gram_step(small_run, model, weights)

    @functools.partial(jax.jit, static_argnames="method")
    def apply(stats, *arguments, method):
        variables = {"params": state.params, "batch_stats": stats}
        return model.apply(variables, *arguments, True, mutable=["batch_stats"], method=method)

    (embedded, experts), stats = apply(state.batch_stats, batch, method="encode")

    def losses(experts):
        preference = jnp.array([0.5, 0.5])
        logits, _ = apply(stats["batch_stats"], (embedded, experts), preference, method="decode")
        labels = batch["labels"].astype(jnp.float32)
        return optax.sigmoid_binary_cross_entropy(logits, labels).mean(axis=0)

    gradients = jax.jit(jax.jacrev(losses))(experts).reshape(2, -1)
    _, metrics = jax.jit(step)(state, batch)
    np.testing.assert_allclose(metrics.loss, (weights * (gradients @ gradients.T)).sum(), rtol=1e-4)


@pytest.mark.parametrize("name", model_names())
def test_every_model_marks_where_its_tasks_meet(name):
    model, batch = create_model(name, options=SMALL, **SHAPES), _small_batch()
    rngs, preference = jax.random.key(0), jnp.full(2, 0.5)
    variables = jax.eval_shape(lambda: model.init(rngs, batch, preference, False))
    assert "perturbations" not in variables

    def marked(variables):
        mutable = ["batch_stats", "perturbations"]
        return model.apply(
            variables, batch, preference, True, rngs={"dropout": rngs}, mutable=mutable
        )[1]["perturbations"]

    shared = jax.tree.leaves(jax.eval_shape(marked, variables))
    assert all(leaf.shape[-2] == 32 for leaf in shared)
    assert shared


def test_a_model_without_a_mark_is_refused_by_objectives_of_gradients(small_run):
    class Unmarked(SharedBottom):
        def mark_shared(self, x, name="shared"):
            return x

    step, state = _gram_step(small_run, Unmarked(**SHAPES, **SMALL), jnp.ones((2, 2)))
    with pytest.raises(UserError, match="Unmarked marks no such place: call its mark_shared"):
        jax.eval_shape(step, state, _small_batch())


def test_a_step_that_is_not_finite_is_left_out_and_counted(small_store):
    config = tiny_config(small_store, model__name="film", train__skip_nonfinite=True)
    training = make_parts(config, small_store)
    state = training.init()
    batch = _first(_batches(training, 1))
    bad = batch | {"numerical": batch["numerical"].at[3, 1].set(jnp.nan)}
    step = jax.jit(training.step)
    new_state, metrics = step(state, bad)
    assert not jnp.isfinite(metrics.loss)
    assert int(metrics.skipped) == 1
    assert int(new_state.step) == 1
    for one, other in zip(
        jax.tree.leaves(state.variables), jax.tree.leaves(new_state.variables), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    newer_state, metrics = step(new_state, batch)
    assert jnp.isfinite(metrics.loss)
    assert int(newer_state.skipped) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model__name": "mmoe", "objective__name": "linear"}, "takes none"),
        ({"objective__name": "chebyshev", "train__preference_per_row": True}, "preference_per_row"),
        ({"objective__name": "epo", "train__preferences": 2}, "one preference per batch"),
        ({"train__preferences": 2, "train__preference_per_row": True}, "set one"),
        ({"objective__name": "hypervolume", "normaliser__name": "front"}, "moves the origin"),
        (
            {
                "objective__name": "hypervolume",
                "normaliser__name": "front",
                "objective__order": 1.0,
            },
            "moves the origin",
        ),
        (
            {
                "objective__name": "chebyshev",
                "normaliser__name": "front",
                "objective__coverage": 1.0,
            },
            "moves the origin",
        ),
        ({"train__preferences": 1, "normaliser__name": "front"}, "compares the preferences"),
        ({"model__name": "nothing"}, "nothing"),
        ({"model__name": "mmoe", "model__gate": "attention"}, "no option 'gate'"),
        ({"objective__name": "linear", "objective__weight": 0.1}, "no option 'weight'"),
        ({"mesh__data": 7}, "devices"),
        ({"optimizer__schedule": "steep"}, "schedule"),
    ],
)
def test_options_that_do_not_fit_are_refused(small_store, overrides, message):
    with pytest.raises(UserError, match=message):
        make_parts(tiny_config(small_store, **overrides), small_store)


def test_an_unconditioned_model_can_be_trained_for_one_preference(small_store):
    config = tiny_config(
        small_store,
        model__name="mmoe",
        objective__name="linear",
        sampler__name="fixed",
        sampler__preferences=(0.25, 0.75),
    )
    training = make_parts(config, small_store)
    _, metrics = jax.jit(training.step)(training.init(), _first(_batches(training, 1)))
    np.testing.assert_allclose(
        metrics.loss, metrics.goal_losses @ jnp.array([0.25, 0.75]), rtol=1e-5
    )
