"""One syntax of overrides: every form means the same; a mistake is told with the nearest name."""

import pytest

from hyperrec_jax.config import defaults
from hyperrec_jax.config.overrides import check_config, overridden, parse_value, split_overrides
from hyperrec_jax.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("-1", -1),
        ("1e-4", 1e-4),
        ("true", True),
        ("False", False),
        ("None", None),
        ("none", "none"),  # the name of a normaliser
        ("(16, 8)", (16, 8)),
        ("[16,8]", (16, 8)),
        ("16,8", (16, 8)),
        ("(32,)", (32,)),
        ("[click, buy]", ("click", "buy")),
        ("[[1,0],[0,1]]", ((1, 0), (0, 1))),
        ("'7'", "7"),
        ("smooth_chebyshev", "smooth_chebyshev"),
        ("data/a b", "data/a b"),
    ],
)
def test_text_stands_for_what_it_looks_like(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config.model.tower_widths=(16, 8)"],
        ["--config.model.tower_widths=[16,8]"],
        ["--config.model.tower_widths", "[16, 8]"],
        ["-config.model.tower_widths=16,8"],
        ["--set", "model.tower_widths=(16,8)"],
        ["--set=model.tower_widths=[16, 8]"],
        ["--set=model.tower_widths=4", "--config.model.tower_widths=[16,8]"],
    ],
)
def test_every_form_is_the_same_override(arguments):
    rest, values = split_overrides(["--workdir", "x", *arguments, "--config", "c.py"])
    assert rest == ["--workdir", "x", "--config", "c.py"]
    config = overridden(defaults.get_config().to_dict(), values)
    assert config["model"] == {"name": "pomoe", "tower_widths": (16, 8)}


def test_switches_and_the_end_of_options():
    rest, values = split_overrides(
        ["--config.train.preference_per_row", "--noconfig.train.prior_bias", "--", "--set", "a=1"]
    )
    assert rest == ["--", "--set", "a=1"]
    train = overridden(defaults.get_config().to_dict(), values)["train"]
    assert (train["preference_per_row"], train["prior_bias"]) == (True, False)


def test_text_stays_text_and_nothing_goes_back_to_the_component():
    config = overridden(
        defaults.get_config("original").to_dict(),
        {"data.store": "2024", "model.num_experts": "None", "normaliser.name": "none"},
    )
    assert config["data"]["store"] == "2024"
    assert "num_experts" not in config["model"]
    assert config["normaliser"]["name"] == "none"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sede": 1}, "no config key 'sede'; did you mean seed"),
        ({"seed": "one"}, "seed is 'one': give a whole number of at least 0"),
        ({"train.epohcs": 3}, "no config key 'train.epohcs'; did you mean train.epochs"),
        ({"modle.name": "x"}, "no config key 'modle.name'; did you mean model.name"),
        ({"model": "mmoe"}, "no config key 'model'; did you mean model.name"),
        ({"train.epochs.more": 3}, "no config key 'train.epochs.more'"),
        ({"train.epochs": "-1"}, "train.epochs is -1: give a whole number of at least 1"),
        ({"optimizer.learning_rate": 0}, "optimizer.learning_rate is 0: give a number above 0"),
        ({"data.resident": "sometimes"}, "give one of auto, always, never"),
    ],
)
def test_a_mistake_names_the_key_and_what_it_takes(values, message):
    config = defaults.get_config().to_dict()
    with pytest.raises(UserError, match=message):
        overridden(config, values)
    assert config == defaults.get_config().to_dict()


@pytest.mark.parametrize("text", ["seed", "=1", ""])
def test_set_needs_key_and_value(text):
    with pytest.raises(UserError, match="give key=value"):
        split_overrides(["--set", text])


def test_a_config_of_the_first_version_gets_one_clear_line():
    config = defaults.get_config().to_dict()
    config["model"]["num_critics"] = None
    with pytest.raises(UserError, match=r"model\.num_critics is empty, .* 0\.1\.0"):
        check_config(config)


@pytest.mark.parametrize("section", ["train", "model"])
def test_a_section_that_is_missing_is_told(section):
    config = defaults.get_config().to_dict()
    del config[section]
    with pytest.raises(UserError, match=f"c.py: the config has no section '{section}'"):
        check_config(config, "c.py: ")


def test_a_config_of_another_release_is_told_what_to_do():
    config = defaults.get_config().to_dict()
    del config["train"]["calibrate"]
    with pytest.raises(UserError, match=r"config\.json: .* no train\.calibrate, as .* train again"):
        check_config(config, "run/config.json: ")
