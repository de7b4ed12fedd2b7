"""Fresh models that predict the base rates."""

import jax
import numpy as np
import pytest

from hyperrec_jax.goals.binary import log_odds
from hyperrec_jax.models import create_model
from tests.conftest import TINY_EXPERTS

pytestmark = pytest.mark.slow

RATES = np.array([0.2, 0.01])


def _predictions(name, rates, **options):
    experts = {key.partition(".")[2]: value for key, value in TINY_EXPERTS.get(name, {}).items()}
    model = create_model(
        name,
        field_sizes=(5, 7),
        num_numerical=3,
        num_tasks=2,
        options={
            "embedding_dim": 4,
            "bottom_widths": (8,),
            "tower_widths": (4,),
            "layout": "batched",
        }
        | experts
        | options,
    )
    rng = np.random.default_rng(0)
    batch = {
        "categorical": rng.integers(0, 5, (500, 2)),
        "numerical": rng.normal(size=(500, 3)).astype(np.float32),
    }
    preference = np.array([0.5, 0.5], np.float32)
    init, apply = (jax.jit(f, static_argnums=3) for f in (model.init, model.apply))
    variables = dict(init(jax.random.key(0), batch, preference, False))
    before = jax.nn.sigmoid(apply(variables, batch, preference, False)).mean(axis=0)
    variables["params"] = model.with_prior(
        variables["params"], [np.array([log_odds(rate)]) for rate in rates]
    )
    return before, jax.nn.sigmoid(apply(variables, batch, preference, False)).mean(axis=0)


@pytest.mark.parametrize("name", ["sharedbottom", "mmoe", "ple", "pomoe", "cosmos", "esmm"])
def test_the_first_predictions_are_the_base_rates(name):
    before, after = _predictions(name, RATES)
    assert before[1] > 0.1
    # Up to what the random weights add to the bias.
    np.testing.assert_allclose(np.log(after), np.log(RATES), atol=0.7)


@pytest.mark.parametrize("output", ["sum", "mean"])
def test_metaheac_begins_between_them(output):
    _, after = _predictions("metaheac", RATES, output=output)
    assert (after > RATES.min()).all()
    assert (after < RATES.max()).all()


def test_rates_of_zero_and_one_stay_finite():
    _, after = _predictions("sharedbottom", np.array([0.0, 1.0]))
    assert np.isfinite(after).all()
    assert after[0] < 1e-3
    assert after[1] > 0.999
