"""The table of fronts, on tiny data: trained, read again, and with its oracle."""

import dataclasses

import numpy as np
import pytest

from benchmarks import fronts
from hyperrec_jax.errors import UserError
from tests.conftest import TINY_MODEL

ROWS = ("--rows", "3000", "--test-rows", "1000")


@pytest.fixture
def tiny(monkeypatch):
    dataset = dataclasses.replace(
        fronts.DATASETS["synthetic_medium"],
        arguments=("synthetic", *ROWS),
        trunk=TINY_MODEL | {"model.num_experts": 2},
        oracle_rays=3,
    )
    monkeypatch.setattr(fronts, "DATASETS", {"synthetic_medium": dataset})
    monkeypatch.setattr(fronts, "GRID", 5)
    monkeypatch.setattr(fronts, "RESAMPLES", 20)


def test_the_table_holds_every_variant_against_the_oracle(tiny, tmp_path, capsys, monkeypatch):
    arguments = ["--seeds", "2", "--variants", "default", "--output", str(tmp_path)]
    results = tmp_path / "fronts.md"
    assert fronts.main([*arguments, "--results", str(results)]) == 0
    text = results.read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names == ["oracle, 3 models", "plain", "default"]
    plain, default = lines[-2], lines[-1]
    assert "| 1.00 | 0.0% |" in " ".join(plain.split())
    assert "0.0% |" not in " ".join(default.split())[-8:]
    assert "Span of the oracle's log loss: click" in text
    assert results.with_suffix(".png").stat().st_size > 1000

    def untrained(*arguments, **options):
        raise AssertionError("complete runs must be read")

    monkeypatch.setattr(fronts.experiment, "train", untrained)
    monkeypatch.setattr(fronts, "train_apart", untrained)
    assert fronts.main([*arguments, "--results", str(results)]) == 0
    assert results.read_text() == text


def test_the_oracle_differs_by_preference_alone(tiny, tmp_path):
    store = fronts.prepare_store("synthetic_medium", None, tmp_path)
    logits = fronts.oracle("synthetic_medium", 1, store, tmp_path)
    assert logits.shape == (3, 2, 1000)
    labels = store.split("test").slice(0, 1000)["labels"].T
    losses = fronts._table(fronts.metrics.log_loss, labels, logits)
    assert np.argmin(losses[:, 0]) < np.argmax(losses[:, 0])
    assert len(np.unique(losses.round(6), axis=0)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variants", "nothing"], "no variant 'nothing'"),
        (["--datasets", "nothing"], "no data set 'nothing'"),
        (["--seeds", "1"], "at least 2"),
        (["--datasets", "census"], "--data is missing"),
    ],
)
def test_wrong_arguments_are_told(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message):
        fronts.main(["--output", str(tmp_path), *arguments])


@pytest.mark.parametrize("name", fronts.VARIANTS)
def test_every_variant_is_a_config_that_its_model_takes(name, small_store):
    for dataset in fronts.DATASETS.values():
        config = fronts.make_config(fronts.VARIANTS[name], dataset.trunk, 0)
        model = fronts.experiment.create_model(config, small_store.schema)
        assert model.embedding_dim == dataset.trunk.get("model.embedding_dim", 128)
