"""What all models have in common, and what is particular to one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit

from hyperrec_jax.config.presets import model_options
from hyperrec_jax.errors import UserError
from hyperrec_jax.models import create_model, model_names

pytestmark = pytest.mark.slow

SIZES, NUMERICAL, ROWS = (3, 7), 2, 8
SMALL = {
    "embedding_dim": 4,
    "bottom_widths": (8, 6),
    "tower_widths": (5,),
    "layout": "batched",
}
CONDITIONED = {"cosmos", "film", "phn", "pomoe", "two_tower"}
VARIANTS = [
    model_options("original"),
    {"gate": "preference", "gate_scope": "per_task", "gate_anchors": False, "norm": "batch"},
    {"gate_activation": "top_k", "expert_adapter": "low_rank", "expert_block": "cross"},
    {"gate": "attention", "gate_scope": "per_task", "tower_adapter": "low_rank", "norm": "layer"},
    {
        "gate": "features",
        "gate_scope": "per_task",
        "gate_activation": "relu",
        "gate_depth": 3,
        "gate_hidden_relu": True,
        "expert_block": "residual",
        "tower_adapter": "none",
        "preference_input": True,
    },
]


def make_batch(tasks, sizes=SIZES, numerical=NUMERICAL):
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, size, ROWS) for size in sizes]
    return {
        "categorical": np.stack(ids, 1).astype(np.uint8) if ids else np.zeros((ROWS, 0), np.uint8),
        "numerical": rng.normal(size=(ROWS, numerical)).astype(np.float32),
        "labels": (rng.random((ROWS, tasks)) < 0.5).astype(np.uint8),
    }


def make_model(name, tasks, options=None, sizes=SIZES, numerical=NUMERICAL):
    """A model, random variables (which take no compilation) and a batch."""
    model = create_model(
        name,
        field_sizes=sizes,
        num_numerical=numerical,
        num_tasks=tasks,
        options=SMALL | (options or {}),
    )
    batch = make_batch(tasks, sizes, numerical)
    rng = np.random.default_rng(2)

    def random(path, leaf):
        values = rng.normal(scale=0.3, size=leaf.shape).astype(np.float32)
        return np.exp(values) if path[-1].key == "variance" else values

    key, preference = jax.random.key(0), jnp.ones(tasks) / tasks
    shapes = jax.eval_shape(lambda: model.init(key, batch, preference, False))
    return model, jax.tree_util.tree_map_with_path(random, shapes), batch


def run(model, variables, batch, preference):
    apply = jax.jit(lambda variables: model.apply(variables, batch, preference, False))
    return np.asarray(apply(variables))


def make_preferences(tasks):
    return np.random.default_rng(1).dirichlet(np.ones(tasks), 2).astype(np.float32)


CASES = [(name, 3, {}) for name in model_names()] + [("pomoe", 1, {}), ("aitm", 1, {})]
CASES += [("two_tower", 2, {"user_adapter": "none", "item_vectors_of": "each_goal"})]
CASES += [("pomoe", 2, variant) for variant in VARIANTS]


@pytest.mark.parametrize(("name", "tasks", "options"), CASES, ids=str)
def test_forms_of_a_preference(name, tasks, options):
    model, variables, batch = make_model(name, tasks, options)
    assert model.conditioned == (name in CONDITIONED)
    preferences = make_preferences(tasks)
    rows = preferences[np.arange(ROWS) % 2]

    @jax.jit
    def forms(variables):
        features = model.apply(variables, batch, False, method="encode")

        def logits(preference):
            return model.apply(variables, features, preference, False, method="decode")

        return (
            [logits(preference) for preference in preferences],
            logits(preferences[:, None]),
            logits(rows),
        )

    singles, several, a_row_each = forms(variables)
    assert singles[0].shape == (ROWS, tasks)
    assert singles[0].dtype == jnp.float32
    if model.conditioned:
        assert several.shape == (2, ROWS, tasks)
        np.testing.assert_allclose(several, singles, atol=1e-4, rtol=1e-4)
        expected = np.stack(singles)[np.arange(ROWS) % 2, np.arange(ROWS)]
        np.testing.assert_allclose(a_row_each, expected, atol=1e-4, rtol=1e-4)
    else:
        for other in (singles[1], several, a_row_each):
            np.testing.assert_array_equal(other, singles[0])


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in ("cosmos", "esmm", "film", "phn", "pomoe", "two_tower")]
    + [("pomoe", variant) for variant in VARIANTS],
    ids=str,
)
def test_all_parameters_learn(name, options):
    """With dropout and several preferences every parameter has a gradient, which leads downhill.

    The parity tests show it for the other models.
    """
    model, variables, batch = make_model(name, 2, options)
    preferences = make_preferences(2)[:, None] if model.conditioned else make_preferences(2)[0]

    def loss(params):
        logits, updates = model.apply(
            {**variables, "params": params},
            batch,
            preferences,
            True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        losses = optax.sigmoid_binary_cross_entropy(logits, batch["labels"].astype(jnp.float32))
        return losses.mean(), updates

    @jax.jit
    def descend(params):
        gradients, updates = jax.grad(loss, has_aux=True)(params)
        rate = 1e-3 / optax.global_norm(gradients)
        moved = jax.tree.map(lambda p, g: p - rate * g, params, gradients)
        return gradients, updates, loss(params)[0], loss(moved)[0]

    gradients, updates, before, after = descend(variables["params"])
    assert after < before
    leaves = jax.tree_util.tree_leaves_with_path(gradients)
    names = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    still = {name for name, leaf in names.items() if not np.any(leaf)}
    # Batch norm takes away what a bias before it adds.
    before_norm = {name.replace("scale", "bias") for name in names if name.endswith("scale")}
    assert still == (set() if model.norm == "layer" else before_norm)
    for old, new in zip(
        jax.tree.leaves(variables.get("batch_stats", {})), jax.tree.leaves(updates), strict=True
    ):
        assert np.all(old != new)


@pytest.mark.parametrize(("sizes", "numerical"), [((), 2), ((3, 7), 0)])
def test_one_kind_of_field_is_enough(sizes, numerical):
    model, variables, batch = make_model("pomoe", 2, sizes=sizes, numerical=numerical)
    logits = run(model, variables, batch, jnp.array([0.5, 0.5]))
    assert np.all(np.isfinite(logits))
    assert np.unique(logits).size > 2


def test_esmm_answers_with_products():
    model, variables, batch = make_model("esmm", 3)
    preference = jnp.ones(3)

    def networks(model):
        return model.towers(tuple(model.encode(batch, False)), False)[..., 0].T

    factors = jax.jit(lambda variables: model.apply(variables, method=networks))(variables)
    logits = run(model, variables, batch, preference)
    np.testing.assert_allclose(expit(logits), np.cumprod(expit(factors), axis=1), atol=1e-6)


def test_metaheac_mean_caps_probabilities():
    paper, variables, batch = make_model("metaheac", 2)
    repository = make_model("metaheac", 2, {"output": "mean"})[0]
    preference = jnp.ones(2)
    probabilities = expit(run(paper, variables, batch, preference))
    capped = expit(run(repository, variables, batch, preference))
    np.testing.assert_allclose(capped, probabilities / paper.num_critics, rtol=1e-4)


def test_metaheac_asks_for_meta_training():
    options = {name: create_model(name, field_sizes=(3,), num_numerical=0, num_tasks=1)
               for name in model_names()}  # fmt: skip
    meta = {name for name, model in options.items() if model.inner_learning_rate > 0}
    assert meta == {"metaheac"}
    assert options["metaheac"].accumulate_steps == 2
    assert options["mmoe"].accumulate_steps == 1


@pytest.mark.parametrize(
    ("name", "options", "gates"),
    [
        ("omoe", {"num_experts": 3}, 1),
        ("mmoe", {"num_experts": 3}, 2),
        ("ple", {"num_task_experts": 2, "num_shared_experts": 1}, 2),
        ("metaheac", {"num_experts": 3, "num_critics": 2}, 2),
    ],
)
def test_what_gates_weigh_experts_by_is_noted(name, options, gates):
    model, variables, batch = make_model(name, 2, options)

    @jax.jit
    def encode(variables):
        return model.apply(variables, batch, False, method="encode", mutable=["intermediates"])

    (weights,) = encode(variables)[1]["intermediates"]["gate_weights"]
    assert [weight.shape for weight in weights] == [(ROWS, 3)] * gates
    np.testing.assert_allclose(jnp.stack(weights).sum(-1), 1, rtol=1e-5)


def test_top_k_needs_that_many_experts():
    with pytest.raises(UserError, match="gate_top_k is 9 but there are 6 experts"):
        make_model("pomoe", 2, {"gate_top_k": 9})


def test_single_task_networks_share_nothing():
    model, variables, batch = make_model("singletask", 2)

    def first_logits(params):
        return model.apply({**variables, "params": params}, batch, jnp.ones(2), False)[:, 0].sum()

    gradients = jax.jit(jax.grad(first_logits))(variables["params"])
    assert np.any(gradients["embeddings_0"]["embedding"])
    assert not np.any(gradients["embeddings_1"]["embedding"])
    for bank in ("bottoms", "towers"):
        for leaf in jax.tree.leaves(gradients[bank]):
            assert not np.any(leaf[1])


@pytest.mark.parametrize(("options", "alike"), [({}, True), (model_options("original"), False)])
def test_towers_begin_alike_but_not_the_originals(options, alike):
    model, _, batch = make_model("pomoe", 2, options)
    init = jax.jit(lambda key: model.init(key, batch, jnp.ones(2) / 2, False)["params"])
    params = init(jax.random.key(0))
    first, second = params["towers"]["output"]["kernel"]
    assert np.array_equal(first, second) == alike
    first, second, *_ = params["experts"]["layer_0"]["kernel"]
    assert not np.array_equal(first, second)


def test_film_under_equal_weights_is_a_shared_bottom():
    """Whatever it has learned of other preferences."""
    film, variables, batch = make_model("film", 3, {"norm": "layer", "tower_widths": (5,)})
    plain, _, _ = make_model("sharedbottom", 3, {"norm": "layer"})
    params = {name: dict(tree) for name, tree in variables["params"].items()}
    for bank in ("bottom", "towers"):
        for name, layer in params[bank].items():
            kept = {k: v for k, v in layer.items() if not k.startswith("film")}
            # What every preference has in common is a part of the layer itself.
            if name != "output":
                gamma, beta = np.split(layer["film_bias"][:, None], 2, axis=-1)
                kept["scale"] = layer["scale"] * (1 + gamma[:, 0])
                kept["shift"] = layer["shift"] * (1 + gamma[:, 0]) + beta[:, 0]
            params[bank][name] = kept
    del params["preference_network"]
    equal = np.full(3, 1 / 3, np.float32)
    expected = run(plain, {"params": params}, batch, equal)
    np.testing.assert_allclose(run(film, variables, batch, equal), expected, atol=1e-4, rtol=1e-4)
    other = run(film, variables, batch, np.array([1, 0, 0], np.float32))
    assert np.abs(other - expected).max() > 1e-2
