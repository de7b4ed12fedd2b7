"""The config lists every option of every component, and nothing that none reads."""

import importlib
import inspect
from pathlib import Path

import pytest

from hyperrec_jax import models
from hyperrec_jax.commands import cli
from hyperrec_jax.config import defaults
from hyperrec_jax.config.resolve import options, resolve
from hyperrec_jax.errors import UserError
from hyperrec_jax.preference import normalisation, objectives
from hyperrec_jax.preference import sampling as preferences
from tests.conftest import ROOT

CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")


def _options(table):
    return {
        name
        for create in table.values()
        for name, parameter in inspect.signature(create).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def _keys(section):
    return set(defaults.get_config()[section]) - {"name"}


def test_every_option_of_a_component_is_a_key_and_every_key_an_option():
    of_models = {key for name in models.model_names() for key in models.model_options(name)}
    assert _keys("model") == of_models
    assert _keys("objective") == _options(objectives.OBJECTIVES) | {"order", "coverage"}
    assert _keys("sampler") == _options(preferences.SAMPLERS)
    # The base rates come from the data.
    assert _keys("normaliser") == _options(normalisation.NORMALISERS) - {"base_rates"}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("preset", defaults.PRESETS)
def test_config_files_take_every_preset(name, preset):
    config = importlib.import_module(f"configs.{name}").get_config(preset)
    assert config.preset == preset
    assert f"configs/{name}.py" in (importlib.import_module(f"configs.{name}").__doc__ or "") or (
        name == "base"
    )


def test_the_original_preset_is_the_original():
    config = defaults.get_config("original").to_dict()
    assert config["model"]["name"] == "pomoe"
    assert config["model"]["num_experts"] == 6
    assert config["objective"]["name"] == "cosine_original"
    assert config["objective"]["weight"] == 0.05
    assert config["sampler"]["concentration"] == (1.0, 1.2)
    assert config["optimizer"] == {
        "learning_rate": 3e-4,
        "l2": 1e-6,
        "schedule": "constant",
        "warmup_steps": 0,
        "lazy_rows": 0,
    }
    train = config["train"]
    assert (train["batch_size"], train["grid"], train["patience"]) == (2048, 5, 2)
    assert train["preferences"] == 1
    assert not train["preference_per_row"]
    assert not train["prior_bias"]
    options = config["model"]
    assert options["code_widths"] == (64, 256, 64)
    assert (options["gate"], options["gate_scope"]) == ("features", "shared")
    assert (options["gate_activation"], options["gate_depth"]) == ("relu", 2)
    assert (options["gate_dropout"], options["norm"]) == (0.05, "batch")
    conditioning = {key for key in models.model_options("pomoe") if key.startswith("gate")}
    used_elsewhere = {"gate_top_k"}  # by the activation `top_k`
    assert conditioning - used_elsewhere <= defaults.model_options("original").keys()


def test_a_config_is_read_with_overrides_for_commands_without_absl():
    path = str(ROOT / "configs" / "census_income.py")
    config = cli.read_config(path, "original", {"seed": 4}, ["model.bottom_widths=[8,4]", "seed=5"])
    assert config["model"]["bottom_widths"] == (8, 4)
    assert config["seed"] == 5
    assert config["data"]["store"] == "data/census_income"


@pytest.mark.parametrize(
    ("path", "preset", "override", "message"),
    [
        ("nowhere.py", "default", "seed=1", "no such file"),
        ("configs/base.py", "nothing", "seed=1", "no such preset"),
        ("configs/base.py", "default", "seed", "key=value"),
        ("configs/base.py", "default", "sede=1", "no config key 'sede'"),
        ("configs/base.py", "default", "seed=one", "seed"),
    ],
)
def test_a_bad_config_is_told(path, preset, override, message):
    full = str(ROOT / path) if Path(ROOT / path).exists() else path
    with pytest.raises(UserError, match=message):
        cli.read_config(full, preset, {}, [override])


def settle(config, store):
    return resolve(config, store.schema, store.split("train")).config


def test_a_settled_config_stands_without_the_defaults(small_store):
    config = defaults.get_config().to_dict()
    settled = settle(config, small_store)
    assert settled["model"]["num_experts"] == 6
    assert settled["model"]["bottom_widths"] == models.model_options("pomoe")["bottom_widths"]
    assert settled["objective"]["name"] == "linear"
    assert settled["normaliser"]["name"] == "entropy"
    assert settled["sampler"]["concentration"] == 0.1
    assert settled["train"]["preferences"] == 2
    assert settled["model"]["num_critics"] is None  # of another model
    assert config == defaults.get_config().to_dict()
    assert settle(settled, small_store) == settled
    plain = defaults.get_config()
    plain.update({"model": {"name": "mmoe"}, "train": {"preference_per_row": False}})
    settled = settle(plain.to_dict(), small_store)
    assert (settled["objective"]["name"], settled["train"]["preferences"]) == ("uniform", 1)
    assert "gate" not in options(settled["model"])
