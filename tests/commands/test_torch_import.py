import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hyperrec_jax.api.load import load_predictor
from hyperrec_jax.commands import export, predict, suggest
from hyperrec_jax.commands.import_torch import main
from hyperrec_jax.config.presets import model_options
from hyperrec_jax.data.prepare import prepare_store
from hyperrec_jax.data.sources.synthetic import SyntheticOptions, synthetic_source
from hyperrec_jax.errors import UserError
from hyperrec_jax.models import create_model
from hyperrec_jax.reports import results
from hyperrec_jax.reports.details import details
from hyperrec_jax.serving.http import create_app
from hyperrec_jax.training.torch_import.convert import convert
from hyperrec_jax.training.train import train
from hyperrec_jax.training.trained import load_trained
from tests.models.torch_reference import REFERENCES

pytestmark = pytest.mark.slow

RAW_SIZES, NUMERICAL = (5, 9), 3
VOCABULARIES = [[4, 2], [0, 8, 5, 7]]  # raw ids in the order of ids 1, 2, ...
EXPERTS = {
    "metaheac": {"num_experts": 4, "num_critics": 3},
    "mmoe": {"num_experts": 4},
    "omoe": {"num_experts": 4},
    "ple": {"num_shared_experts": 2, "num_task_experts": 2},
    "pomoe": model_options("original") | {"num_experts": 4},
}


def make_model(name, **options):
    sizes = {
        "embedding_dim": 8,
        "bottom_widths": (16, 12),
        "tower_widths": (10, 6),
        "layout": "batched",
    }
    return create_model(
        name,
        field_sizes=tuple(len(values) + 1 for values in VOCABULARIES),
        num_numerical=NUMERICAL,
        num_tasks=2,
        options=sizes | EXPERTS.get(name, {}) | options,
    )


def make_state(name):
    torch.manual_seed(0)
    return REFERENCES[name](RAW_SIZES, NUMERICAL, 2).eval()


@pytest.mark.parametrize("name", REFERENCES)
def test_raw_ids_find_their_rows(name, tmp_path):
    reference = make_state(name)
    torch.save(reference.state_dict(), tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    model = make_model(name)
    variables = convert(state, name, model, VOCABULARIES)
    ids = np.array([[1, 1], [2, 4], [1, 3]])
    raw = np.array([[4, 0], [2, 7], [4, 5]])
    numbers = np.random.default_rng(0).normal(size=(3, NUMERICAL)).astype(np.float32)
    preference = np.array([0.3, 0.7], np.float32)
    with torch.no_grad():
        expected = reference(*map(torch.from_numpy, (raw, numbers, preference)))
    batch = {"categorical": ids, "numerical": numbers}
    apply = jax.jit(model.apply, static_argnums=3)
    logits = apply(variables, batch, preference, False)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_unseen_ids_get_the_mean_of_their_field():
    state = make_state("sharedbottom").state_dict()
    variables = convert(state, "sharedbottom", make_model("sharedbottom"), VOCABULARIES)
    table = variables["params"]["embedding"]["embedding"]
    np.testing.assert_allclose(table[0], table[1:3].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(table[3], table[4:].mean(axis=0), rtol=1e-6)


def test_sizes_of_the_original_table_can_be_given():
    state = make_state("sharedbottom").state_dict()
    short = [[3, 2], [0, 7]]  # without the largest ids, such as a validation split may take away
    model = create_model(
        "sharedbottom", field_sizes=(3, 3), num_numerical=NUMERICAL, num_tasks=2,
        options={"embedding_dim": 8, "bottom_widths": (16, 12), "tower_widths": (10, 6)},
    )  # fmt: skip
    with pytest.raises(
        UserError, match=r"embedding.embedding.weight \[14, 8\] instead of \[12, 8\]"
    ):
        convert(state, "sharedbottom", model, short)
    variables = convert(state, "sharedbottom", model, short, RAW_SIZES)
    table = variables["params"]["embedding"]["embedding"]
    np.testing.assert_array_equal(table[5], state["embedding.embedding.weight"][5 + 7])
    with pytest.raises(UserError, match="field 1 has raw id 7 but only 6 rows"):
        convert(state, "sharedbottom", model, short, (5, 6))


def test_all_misfits_are_listed():
    state = dict(make_state("pomoe").state_dict())
    state["expert.4.mlp.0.weight"] = state.pop("expert.0.mlp.0.weight")
    del state["hypter.gate_bias2.bias"]
    state["tower.1.mlp.8.bias"] = torch.zeros(2)
    with pytest.raises(UserError) as error:
        convert(state, "pomoe", make_model("pomoe"), VOCABULARIES)
    assert str(error.value) == (
        "the checkpoint does not fit the model; "
        "missing: expert.0.mlp.0.weight, hypter.gate_bias2.bias; "
        "unexpected: expert.4.mlp.0.weight; "
        "wrong shape: tower.1.mlp.8.bias [2] instead of [1]"
    )


def test_models_that_the_original_lacks_are_refused():
    with pytest.raises(UserError, match="has no model 'esmm': choose one of aitm, "):
        convert({}, "esmm", make_model("esmm"), VOCABULARIES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "additive"}, "one shared gate of two generated layers"),
        ({"tower_adapter": "film"}, "differs from the original in params/towers/layer_0/film_bias"),
        ({"norm": "layer"}, "differs from the original in batch_stats/experts/layer_0/mean"),
    ],
)
def test_options_that_the_original_lacks_are_refused(options, message):
    state = make_state("pomoe").state_dict()
    with pytest.raises(UserError, match=message):
        convert(state, "pomoe", make_model("pomoe", **options), VOCABULARIES)


@pytest.fixture(scope="module")
def synthetic_store(tmp_path_factory):
    path = tmp_path_factory.mktemp("synthetic") / "store"
    return prepare_store(synthetic_source(SyntheticOptions(rows=3000, test_rows=500)), path, 0.1)


def _import(store, checkpoint, workdir):
    sizes = "model.embedding_dim=8 model.bottom_widths=[16,12] model.tower_widths=[10,6]"
    overrides = [
        word
        for value in [*sizes.split(), "model.num_experts=4", "train.batch_size=256"]
        for word in ("--set", value)
    ]
    files = ["--checkpoint", checkpoint, "--store", store.path, "--workdir", workdir]
    return main([*map(str, files), "--model", "pomoe", *overrides])


def _run_all_commands(run, store, folder):
    """Evaluates, suggests, predicts, exports and loads for a server."""
    front, scores = load_trained(run).score(store, "validation", 5)
    beside = details(run, load_trained(run), store.split("validation"), scores, front)
    results.write(front, run / "evaluation" / "validation", beside)
    assert suggest.main(["--workdir", str(run), "--goal", "knee"]) == 0
    columns = {
        field.name: store.vocabulary(field.name)[:1].to_pylist() * 3
        for field in store.schema.categorical
    } | {field.name: [0.5, 1.0, 2.0] for field in store.schema.numerical}
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    files = ["--input", str(folder / "rows.parquet"), "--output", str(folder / "scores.parquet")]
    export.main(["--workdir", str(run), "--out", str(folder / "model")])
    found = []
    for model in (run, folder / "model"):
        assert predict.main(["--workdir", str(model), *files]) == 0
        found.append(pq.read_table(folder / "scores.parquet").to_pandas().to_numpy())
    np.testing.assert_allclose(*found, atol=1e-6)
    create_app(load_predictor(folder / "model"))


def test_the_command_makes_a_workdir_to_evaluate_and_train(synthetic_store, tmp_path):
    store = synthetic_store
    raw_sizes = [
        max(store.vocabulary(field.name).to_pylist()) + 1 for field in store.schema.categorical
    ]
    torch.manual_seed(0)
    reference = REFERENCES["pomoe"](raw_sizes, 63, 2).eval()
    torch.save(reference.state_dict(), tmp_path / "model.pt")
    assert _import(store, tmp_path / "model.pt", tmp_path / "run") == 0

    trained = load_trained(tmp_path / "run")
    batch = store.split("train").slice(0, 50)
    raw = np.stack(
        [
            np.array([0, *store.vocabulary(field.name).to_pylist()])[batch["categorical"][:, i]]
            for i, field in enumerate(store.schema.categorical)
        ],
        axis=1,
    )
    preference = np.array([0.25, 0.75], np.float32)
    with torch.no_grad():
        expected = reference(
            torch.from_numpy(raw),
            torch.from_numpy(np.array(batch["numerical"])),
            torch.tensor(preference),
        )
    apply = jax.jit(trained.network.apply, static_argnums=3)
    logits = apply(trained.variables, batch, preference, False)
    np.testing.assert_allclose(logits, expected, atol=2e-5)

    _run_all_commands(tmp_path / "run", store, tmp_path)
    config = trained.config | {"train": trained.config["train"] | {"epochs": 1}}
    assert train(config, tmp_path / "run", store).epoch == 1
    with pytest.raises(UserError, match="holds a run already"):
        _import(store, tmp_path / "model.pt", tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "message"), [(b"no zip", "not a PyTorch state dict"), (None, "no such file")]
)
def test_a_file_that_is_no_state_dict_is_refused(synthetic_store, tmp_path, content, message):
    path = tmp_path / "model.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        _import(synthetic_store, path, tmp_path / "run")


def test_a_pickle_that_would_run_code_is_refused(synthetic_store, tmp_path):
    class Mischief:
        def __reduce__(self):
            return print, ("ran",)

    torch.save({"weight": Mischief()}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="not a PyTorch state dict"):
        _import(synthetic_store, tmp_path / "model.pt", tmp_path / "run")
