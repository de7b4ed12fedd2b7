"""Fields of widths of their own, and towers of widths of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperrec_jax.errors import UserError
from hyperrec_jax.models import create_model, model_names
from hyperrec_jax.models.base import Names
from hyperrec_jax.models.features import FeatureEmbedding
from hyperrec_jax.models.tables import Own
from tests.conftest import TINY_EXPERTS
from tests.models.test_pooling import DIM, INPUTS, SIZES, several_batch

pytestmark = pytest.mark.slow

OWN = ((0, Own(4)), (2, Own(3, frozen=True)))
NAMES = Names(("item", "colour"), (), ("click", "buy", "return"))
SMALL = {"embedding_dim": 4, "bottom_widths": (8,), "tower_widths": (4,)}


def embedding(fold="never"):
    return FeatureEmbedding(SIZES, 2, DIM, fold, inputs=INPUTS, own=OWN, vector_widths=(DIM, 2))


def variables(batch):
    """Parameters, and frozen vectors that are not zero."""
    made = embedding().init(jax.random.key(0), batch)
    frozen = jax.random.normal(jax.random.key(9), (5, 3))
    return made["params"], {"own_2": {"embedding": frozen}}


def test_each_field_has_the_vectors_of_its_own_table():
    batch = several_batch()
    params, frozen = variables(batch)
    assert params["embedding"].shape == (4, DIM)  # the colours alone
    assert "own_2" not in params  # no parameter
    x = embedding().apply({"params": params, "batch_stats": frozen}, batch)
    items, colours = params["own_0"]["embedding"], params["embedding"]
    tags = frozen["own_2"]["embedding"]
    assert x.widths == (4, DIM, DIM, 4, 3, 4, DIM, 4, DIM, 2)
    parts = jnp.split(x.concatenate(), np.cumsum(x.widths)[:-1], axis=1)
    ids, own = batch["categorical"], batch["multivalued"][:, :3]
    np.testing.assert_array_equal(parts[0], items[ids[:, 0]])
    np.testing.assert_array_equal(parts[1], colours[ids[:, 2]])
    np.testing.assert_array_equal(parts[3], items[ids[:, 1]])
    for row in range(8):
        there = own[row][own[row] >= 0]
        mean = tags[there].mean(axis=0) if len(there) else np.zeros(3)
        np.testing.assert_allclose(parts[4][row], mean, atol=1e-6)


def test_folded_and_plain_paths_are_equal_with_their_gradients():
    batch = several_batch()
    params, frozen = variables(batch)
    kernel = jax.random.normal(jax.random.key(1), (3 * 4 + 3 + 4 * DIM + 4 + 2 + 0, 7))

    def loss(params, fold):
        x = embedding(fold).apply({"params": params, "batch_stats": frozen}, batch)
        assert x.shape[1] == len(kernel)
        return (jnp.tanh(x @ kernel) ** 2).sum()

    plain, folded = (jax.value_and_grad(loss)(params, fold) for fold in ("never", "always"))
    np.testing.assert_allclose(plain[0], folded[0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), plain[1], folded[1])


def make(name, **options):
    tiny = {key.removeprefix("model."): v for key, v in TINY_EXPERTS.get(name, {}).items()}
    return create_model(
        name,
        field_sizes=(9, 4),
        num_numerical=2,
        num_tasks=3,
        names=NAMES,
        options=SMALL | tiny | options,
    )


BATCH = {
    "categorical": np.array([[1, 2], [8, 0], [3, 3]]),
    "numerical": np.ones((3, 2), np.float32),
}


def test_towers_of_several_widths_are_banks_of_each():
    model = make("mmoe", goal_tower_widths={"buy": (6, 5)}, norm="layer", dropout=0.0)
    key, weights = jax.random.key(0), jnp.ones(3) / 3
    params = model.init(key, BATCH, weights, False)["params"]
    params = model.with_prior(params, [np.array([float(goal)]) for goal in range(3)])
    groups = params["towers"]
    assert groups["group_0"]["layer_0"]["kernel"].shape == (2, 8, 4)
    assert groups["group_1"]["layer_1"]["kernel"].shape == (1, 6, 5)
    np.testing.assert_array_equal(groups["group_0"]["output"]["bias"][:, 0], [0, 2])
    np.testing.assert_array_equal(groups["group_1"]["output"]["bias"][:, 0], [1])
    logits = model.apply({"params": params}, BATCH, weights, False)
    mixed = model.apply({"params": params}, BATCH, False, method="encode")
    for goal, (group, place) in enumerate([(0, 0), (1, 0), (0, 1)]):
        alone = model.new_bank(1, (4,) if group == 0 else (6, 5), outputs=1, parent=None)
        own = jax.tree.map(
            lambda leaf, place=place: leaf[place : place + 1], groups[f"group_{group}"]
        )
        expected = alone.apply({"params": own}, mixed[goal], False)[0, :, 0]
        np.testing.assert_allclose(logits[:, goal], expected, atol=1e-6)


@pytest.mark.parametrize(
    "name", [n for n in model_names() if n not in ("phn", "metaheac", "two_tower")]
)
def test_every_model_takes_both(name):
    options = {"goal_tower_widths": {"click": (3,)}, "embedding_dims": {"item": 7}}
    model = make(name, **options)
    shape = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), BATCH, jnp.ones(3) / 3, False)[0]
    )
    assert shape.shape[-2:] == (3, 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("metaheac", {"embedding_dims": {"item": 7}}, "mean of the vectors of all fields"),
        ("metaheac", {"goal_tower_widths": {"buy": (3,)}}, "no tower for each goal"),
        ("phn", {"goal_tower_widths": {"buy": (3,)}}, "no tower for each goal"),
        ("two_tower", {"goal_tower_widths": {"buy": (3,)}}, "no tower for each goal"),
        ("mmoe", {"goal_tower_widths": {"buy": 3}}, "a dictionary from names to a list of whole"),
        ("mmoe", {"embedding_dims": {"item": 0}}, "a dictionary from names to a whole number of"),
        ("mmoe", {"embedding_dims": 8}, "a dictionary from names"),
    ],
)
def test_refusals(name, options, message):
    with pytest.raises(UserError, match=message):
        make(name, **options)
