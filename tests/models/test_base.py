import numpy as np
import pytest

from hyperrec_jax.errors import UserError
from hyperrec_jax.models import (
    MultiTaskModel,
    create_model,
    model_class,
    model_names,
    model_options,
    preference_share,
    register,
)


def create(name="pomoe", options=None, **sizes):
    sizes = {"field_sizes": (3,), "num_numerical": 1, "num_tasks": 2} | sizes
    return create_model(name, options=options, **sizes)


def test_all_models_are_there():
    assert set(model_names()) >= {
        "singletask", "sharedbottom", "omoe", "mmoe", "ple", "aitm", "metaheac", "pomoe",
        "esmm", "film", "phn", "cosmos", "two_tower",
    }  # fmt: skip


def test_defaults_are_those_of_the_originals():
    shared = {
        "embedding_dim": 128,
        "bottom_widths": (512, 256),
        "tower_widths": (128, 64),
        "dropout": 0.2,
        "norm": "batch",
    }
    own = {
        "mmoe": {"num_experts": 8},
        "omoe": {"num_experts": 8},
        "ple": {"num_shared_experts": 4, "num_task_experts": 4},
        "metaheac": {"num_experts": 8, "num_critics": 5, "inner_learning_rate": 2e-4},
        "film": {"norm": "pooled"},
        "two_tower": {"norm": "pooled"},
        "pomoe": {"num_experts": 6, "code_widths": (64, 256, 64), "norm": "pooled"},
    }
    for name in model_names():
        assert (shared | own.get(name, {})).items() <= model_options(name).items()


def test_options_reach_the_model():
    model = create(options={"bottom_widths": [4, 3], "dropout": 0, "gate": "additive"})
    assert (model.bottom_widths, model.dropout, model.gate) == ((4, 3), 0, "additive")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "mmeo"}, "no model 'mmeo'; did you mean mmoe"),
        ({"options": {"experts": 3}}, "'pomoe' has no option 'experts'; did you mean num_experts"),
        ({"options": {"gate": "feature"}}, "'gate' .* is 'feature': give one of features, "),
        ({"options": {"num_experts": 0}}, "'num_experts' .* is 0: give a whole number"),
        ({"options": {"num_experts": True}}, "'num_experts' .* is True: give a whole number"),
        ({"options": {"dropout": 1.0}}, r"'dropout' .* is 1.0: give a number in \[0, 1\)"),
        ({"options": {"dropout": "0.1"}}, "'dropout' .* is '0.1': give a number"),
        ({"options": {"bottom_widths": "512"}}, "'bottom_widths' .* a list of whole numbers"),
        ({"options": {"bottom_widths": (8, -1)}}, "'bottom_widths' .* a list of whole numbers"),
        ({"options": {"bottom_widths": ()}}, "'bottom_widths' .* a list of whole numbers"),
        ({"options": {"preference_input": 1}}, "'preference_input' .* is 1: give true or false"),
        ({"num_tasks": 0}, "needs at least one goal, not 0"),
        ({"field_sizes": (), "num_numerical": 0}, "at least one categorical or numerical field"),
    ],
)  # fmt: skip
def test_mistakes_are_told(kwargs, message):
    with pytest.raises(UserError, match=message):
        create(**kwargs)


def test_names_are_unique():
    with pytest.raises(ValueError, match="'pomoe' is taken by PoMoE"):

        @register("pomoe")
        class Other(MultiTaskModel):
            pass

    assert model_class("pomoe").__name__ == "PoMoE"


def test_the_share_of_the_preference_counts_what_lies_between_it_and_the_logits():
    model = create(options={"embedding_dim": 2, "bottom_widths": (4,), "tower_widths": (3,)})
    params = {
        "preference_network": {"layer_0": {"kernel": np.zeros((2, 5))}},
        "gates_0": {"layer_0": {"kernel": np.zeros(20)}, "shift": {"kernel": np.zeros(6)}},
        "towers": {"layer_0": {"kernel": np.zeros(60), "film_kernel": np.zeros(4)}},
    }
    assert preference_share(model, params) == pytest.approx((10 + 6 + 4) / 100)
    assert preference_share(create("mmoe"), params) == 0
    generated = create(options={"gate": "features"})
    assert preference_share(generated, params) == pytest.approx((10 + 26 + 4) / 100)
