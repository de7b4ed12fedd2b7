"""What a config makes of a schema, and what it refuses."""

import json

import pytest

from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.csv_files import csv_source
from hyperrec_jax.errors import UserError
from tests.conftest import tiny_config, write_own_data


@pytest.fixture(scope="module")
def reversed_store(tmp_path_factory):
    """A store whose first label needs its second."""
    folder = tmp_path_factory.mktemp("reversed")
    path = write_own_data(folder)
    path.write_text(path.read_text().replace("[click, buy]", "[buy, click]"))
    return prepare_store(csv_source(path), folder / "store", 0.1)


def _resolved(store, **overrides):
    return resolve(tiny_config(store, **overrides), store.schema, store.split("train"))


def test_labels_out_of_order_are_refused_by_a_model_that_needs_their_order(
    small_store, reversed_store, caplog
):
    with pytest.raises(UserError, match="click is positive in training rows where buy is not"):
        _resolved(reversed_store, model__name="esmm")
    assert _resolved(small_store, model__name="esmm").model.funnel == "needed"
    assert not caplog.records
    _resolved(reversed_store, model__name="aitm")
    assert "click is positive in training rows where buy is not" in caplog.text


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("train__epochs", 0),
        ("train__epochs", -1),
        ("train__batch_size", 0),
        ("train__checkpoint_every", 0),
        ("train__steps_per_dispatch", 0),
        ("train__grid", 0),
        ("train__preferences", 0),
        ("optimizer__learning_rate", -1e-3),
        ("optimizer__learning_rate", 0.0),
        ("optimizer__l2", -1.0),
        ("optimizer__warmup_steps", -1),
    ],
)
def test_numbers_out_of_range_are_refused(small_store, option, value):
    name = option.replace("__", ".")
    with pytest.raises(UserError, match=rf"{name}\b.*{value}"):
        _resolved(small_store, **{option: value})


@pytest.mark.parametrize("section", ["model", "objective", "normaliser", "sampler"])
@pytest.mark.parametrize("name", [True, 1, {"a": 1}, (1, 2)])
def test_names_that_are_no_text_are_refused(small_store, section, name):
    config = tiny_config(small_store)
    config[section] = {"name": name}
    with pytest.raises(UserError, match=f"no {section} "):
        resolve(config, small_store.schema, small_store.split("train"))


def test_a_run_has_its_config_written_out(small_store):
    config = tiny_config(small_store)
    run = _resolved(small_store)
    assert run.config["train"]["preferences"] == run.num_preferences == 2
    assert json.loads(json.dumps(run.config)) != json.loads(json.dumps(config))
    again = resolve(run.config, small_store.schema, small_store.split("train"))
    assert again.config == run.config
