"""Config files: found from anywhere, presets under them, mistakes in one line."""

import pytest

from hyperrec_jax.config.files import config_name, import_file, load_config, load_parts
from hyperrec_jax.errors import UserError
from tests.conftest import ROOT

HEAD = "from hyperrec_jax.config import defaults\n"
OWN = HEAD + (
    "def get_config(preset='default'):\n"
    "    config = defaults.get_config(preset)\n"
    "    config.model.num_experts = 3\n"
    "    config.train.epochs = 4\n"
    "    return config\n"
)


def test_overrides_lie_over_the_file_and_the_file_over_the_preset(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    config = load_config(str(path), {"preset": "original", "train.epochs": "5", "seed": "7"})
    assert (config["preset"], config["seed"], config["train"]["epochs"]) == ("original", 7, 5)
    assert config["model"]["num_experts"] == 3
    assert config["model"]["gate"] == "features"
    assert load_config(f"{path}:original", {})["model"]["gate"] == "features"
    assert "gate" not in load_config(str(path), {})["model"]
    assert config_name(str(path)) == "own"


def test_without_a_file_the_defaults_are_taken():
    assert load_config(None, {}) == load_config("default", {})
    assert load_config(None, {"preset": "original"})["train"]["patience"] == 2
    assert load_config("default:original", {})["model"]["gate"] == "features"
    assert config_name(None) == "default"


def test_a_config_of_a_package_is_loaded_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for country in ("es", "fr", "nl", "ru", "us"):
        config = load_config(str(ROOT / f"configs/aliexpress_{country}.py"), {})
        assert config["data"]["store"] == f"data/aliexpress_{country}"


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("x = 1\n", {}, "has no function get_config"),
        ("import nowhere_at_all\n", {}, "ModuleNotFoundError: .*nowhere_at_all"),
        ("def get_config(:\n", {}, "SyntaxError"),
        ("def get_config(preset=''):\n    return 1 / 0\n", {}, "ZeroDivisionError"),
        ("def get_config():\n    return {}\n", {}, "returned no ConfigDict"),
        ("def get_config():\n    return {}\n", {"preset": "original"}, "takes no preset"),
        (OWN, {"preset": "orignal"}, "no preset 'orignal'; did you mean original"),
        (OWN.replace("epochs", "epoch"), {}, "no config key 'train.epoch'; did you mean train.ep"),
        (OWN.replace("= 4", "= -4"), {}, "own.py: train.epochs is -4"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, text, values, message):
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_config(str(path), values)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there():
    with pytest.raises(UserError, match=r"--config nowhere\.py: no such file"):
        load_config("nowhere.py", {})
    with pytest.raises(UserError, match=r"--import .*nowhere\.py: no Python file"):
        load_parts("nowhere.py")
    with pytest.raises(UserError, match="--import nowhere_at_all: ModuleNotFoundError"):
        load_parts("nowhere_at_all")


def test_a_file_is_run_once(tmp_path):
    path = tmp_path / "parts.py"
    path.write_text("import os\nos.mkdir(__file__ + '.ran')\n")
    assert import_file(path, "--import") is import_file(path, "--import")
    assert (tmp_path / "parts.py.ran").is_dir()
