"""Studies: they search what they are told, go on where they stopped, and judge by validation."""

import pytest

from hyperrec_jax.commands.tune import main
from hyperrec_jax.errors import TrainingError, UserError
from hyperrec_jax.exit import one_line_errors
from hyperrec_jax.training import workdir
from hyperrec_jax.training.log import read_metrics
from hyperrec_jax.training.tune import DEFAULT_RANGES, Range, summary, tune
from tests.conftest import ROOT, tiny_config
from tests.training.test_workdir import tree

pytestmark = pytest.mark.slow

RANGES = (
    Range.parse("optimizer.learning_rate=1e-4:1e-2:log"),
    Range.parse("sampler.name=dirichlet,stratified"),
)


@pytest.fixture
def config(small_store):
    return tiny_config(small_store, model__name="sharedbottom", train__epochs=1)


def test_ranges():
    assert Range.parse("a.b=1:8") == Range("a.b", (), 1, 8, False)
    assert Range.parse("a=1e-4:.01:log") == Range("a", (), 1e-4, 0.01, True)
    assert Range.parse("a=x,y") == Range("a", ("x", "y"))
    for text in DEFAULT_RANGES:
        Range.parse(text)


@pytest.mark.parametrize("text", ["a", "a=", "a=1", "a=2:1", "a=0:1:log", "a=1:2:lin", "=1:2"])
def test_a_bad_range_is_told(text):
    with pytest.raises(UserError, match="write NAME=LOW:HIGH"):
        Range.parse(text)


def test_a_study_goes_on_where_it_was_stopped(config, tmp_path, monkeypatch, capsys):
    metrics = ("auc/click", "auc/buy")
    with monkeypatch.context() as patch:
        patch.setattr("hyperrec_jax.training.train.train", _stop)
        with pytest.raises(KeyboardInterrupt):
            tune(config, tmp_path, RANGES, 2, metrics)
    study = tune(config, tmp_path, RANGES, 2, metrics)
    told = [line.partition(": ") for line in capsys.readouterr().err.splitlines()]
    first, again, second = [part for part in told if part[0].startswith("trial")]
    assert first == again
    assert second[0] == "trial 2 of 2"
    stopped, *finished = study.trials
    assert finished[0].params == stopped.params
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert sorted(path.name for path in tmp_path.glob("trial_*")) == ["trial_0000", "trial_0002"]
    for trial, folder in zip(finished, ("trial_0000", "trial_0002"), strict=True):
        flat = workdir.flatten(workdir.load_config(tmp_path / folder))
        assert {name: flat[name] for name in trial.params} == trial.params
        (record,) = [r for r in read_metrics(tmp_path / folder) if r["kind"] == "validation"]
        assert trial.values == [record[name] for name in metrics]
    assert len(tune(config, tmp_path, RANGES, 2, metrics).trials) == 3  # nothing is left to do
    assert "trial_000" in summary(study, metrics)
    with pytest.raises(UserError, match="maximises auc/click, auc/buy; take another"):
        tune(config, tmp_path, RANGES, 3, ("auc/click", "hypervolume"))
    with pytest.raises(UserError, match="maximises auc/click, auc/buy; take another"):
        tune(config, tmp_path, RANGES, 3, ("hypervolume",))


def _stop(*arguments):
    raise KeyboardInterrupt


def test_a_run_that_diverges_does_not_end_the_study(config, tmp_path, monkeypatch):
    def diverge(*arguments):
        raise TrainingError("loss is not finite")

    monkeypatch.setattr("hyperrec_jax.training.train.train", diverge)
    for trials in (2, 3):
        study = tune(config, tmp_path, RANGES, trials)
        assert [trial.state.name for trial in study.trials] == ["FAIL"] * trials
    assert summary(study, ["hypervolume"]) == "no trial has finished"


@pytest.mark.parametrize(
    ("ranges", "metrics", "message"),
    [
        (["optimizer.rate_of_learning=0.1:1.0"], "hypervolume", r"--range:.*rate_of_learning"),
        (["model.num_expert=2:4"], "hypervolume", "--range:.*num_expert"),
        (["train.epochs=0:3"], "hypervolume", "--range:.*train.epochs"),
        (["model.dropout=0.0:0.5"], "auc/sale", "no measure 'auc/sale'; .*auc/buy, auc/click"),
        (
            ["model.dropout=0.0:0.5"],
            "hypervolum",
            "no measure 'hypervolum'; did you mean hypervolume",
        ),
    ],
)
def test_a_refused_study_is_not_begun(config, tmp_path, ranges, metrics, message):
    """It would be stuck with the bad range or metric: a study goes on with what it was begun."""
    spaces = [Range.parse(text) for text in ranges]
    with pytest.raises(UserError, match=message):
        tune(config, tmp_path / "study", spaces, 1, (metrics,))
    assert not (tmp_path / "study").exists()


def test_a_refusal_leaves_a_study_as_it_was(config, tmp_path, monkeypatch):
    def diverge(*arguments):
        raise TrainingError("loss is not finite")

    monkeypatch.setattr("hyperrec_jax.training.train.train", diverge)
    tune(config, tmp_path, RANGES, 1)
    before = tree(tmp_path)
    with pytest.raises(UserError, match="maximises hypervolume; take another folder"):
        tune(config, tmp_path, RANGES, 2, ("auc/click", "hypervolume"))
    with pytest.raises(UserError, match="--range"):
        tune(config, tmp_path, [Range.parse("train.epoch=1:2")], 2)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/base.py"], "--study is missing"),
        (["--study={folder}", "--set=train.epohcs=3"], "did you mean train.epochs"),
        (["--config=configs/base.py", "--study={folder}", "--range=a"], "write NAME=LOW:HIGH"),
        (
            ["--config=configs/base.py", "--study={folder}", "--config.data.store={folder}/none"],
            "no prepared data here",
        ),
    ],
)
def test_the_command_tells_mistakes_in_one_line(tmp_path, monkeypatch, capfd, arguments, message):
    monkeypatch.chdir(ROOT)
    filled = [argument.format(folder=tmp_path) for argument in arguments]
    with pytest.raises(SystemExit) as end, one_line_errors():
        main(filled)
    assert end.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
