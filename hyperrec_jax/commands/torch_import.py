"""Makes a workdir of a PyTorch checkpoint: `hyperrec torch_import ...`.

The workdir is for evaluate.py, and for further training with train.py. The checkpoint is a
`state_dict` of the original, MTReclib with its PO-MoE fork, whose keys are such as
`expert.0.mlp.0.weight`; its mmoe, whose gate draws unseeded preferences, is taken as MTReclib has
it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hyperrec_jax.commands import cli
from hyperrec_jax.config.resolve import resolve
from hyperrec_jax.config.run import Config
from hyperrec_jax.data.store import Store
from hyperrec_jax.errors import UserError
from hyperrec_jax.models.base import MultiTaskModel
from hyperrec_jax.parallel.tables import table_rows
from hyperrec_jax.training import workdir as workdirs
from hyperrec_jax.training.checkpoint import Checkpoints, Progress
from hyperrec_jax.training.state import first_state, state_template

Tree = dict[str, Any]


def convert(
    state_dict: Mapping[str, Any],
    name: str,
    model: MultiTaskModel,
    vocabularies: Sequence[Sequence[int]],
    raw_field_sizes: Sequence[int] | None = None,
) -> dict[str, Tree]:
    """Variables (`params` and `batch_stats`) from a state dict of the original.

    The original's embedding table has a row for every raw id from 0 to a field's maximum, ours
    one for every id seen in training after that for unseen ones, which gets the mean of the rest.

    Args:
      state_dict: Arrays or tensors by key.
      name: Registered name of the model.
      model: The model, with the sizes that the file was trained with.
      vocabularies: A field's raw ids in the order of its ids 1, 2, ...
      raw_field_sizes: Rows of each field in the original's table; by default the largest raw id
        of the vocabulary plus 1.

    Raises:
      UserError: If the original has no such model, or keys are missing, unexpected or of the
        wrong shape: the message lists all of them.
    """
    if name not in _LAYOUTS:
        raise UserError(
            f"the PyTorch original has no model {name!r}: choose one of {', '.join(_LAYOUTS)}"
        )
    largest = [max(map(int, values), default=-1) for values in vocabularies]
    sizes = list(raw_field_sizes or (value + 1 for value in largest))
    for field, (size, value) in enumerate(zip(sizes, largest, strict=True)):
        if value >= size:
            raise UserError(f"field {field} has raw id {value} but only {size} rows in the table")
    reader = _Reader(state_dict, model, vocabularies, sizes)
    variables = _LAYOUTS[name](reader, model)
    reader.finish()
    _check_structure(variables, model)
    return variables


def _check_structure(variables: Tree, model: MultiTaskModel) -> None:
    """Raises UserError where the model has variables that the original has not."""
    batch = {
        "categorical": jnp.zeros((2, len(model.field_sizes)), jnp.int32),
        "numerical": jnp.zeros((2, model.num_numerical)),
    }
    key, preference = jax.random.key(0), jnp.ones(model.num_tasks)
    own = jax.eval_shape(lambda: model.init(key, batch, preference, False))
    shapes = [
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
            for path, leaf in leaves
        }
        for leaves in map(jax.tree_util.tree_leaves_with_path, (own, variables))
    ]
    unlike = sorted(dict(shapes[0].items() ^ shapes[1].items()))
    if unlike:
        raise UserError(
            f"with these options the model differs from the original in {', '.join(unlike)}; "
            "import with the options that the checkpoint was trained with"
        )


class _Reader:
    """Takes arrays out of a state dict and keeps account of what did not fit."""

    def __init__(
        self,
        state_dict: Mapping[str, Any],
        model: MultiTaskModel,
        vocabularies: Sequence[Sequence[int]],
        raw_field_sizes: Sequence[int],
    ) -> None:
        self.arrays = {key: np.array(value) for key, value in state_dict.items()}
        self.model = model
        self.vocabularies = vocabularies
        self.raw_field_sizes = raw_field_sizes
        self.used: set[str] = set()
        self.missing: list[str] = []
        self.misshapen: list[str] = []

    @property
    def input_width(self) -> int:
        fields = len(self.model.field_sizes) + (self.model.num_numerical > 0)
        return fields * self.model.embedding_dim

    def take(self, key: str, *shape: int) -> np.ndarray:
        """The array of a key; where it is missing or misshapen, zeros until `finish` raises."""
        self.used.add(key)
        if key not in self.arrays:
            self.missing.append(key)
            return np.zeros(shape, np.float32)
        array = self.arrays[key]
        if array.shape != shape:
            self.misshapen.append(f"{key} {list(array.shape)} instead of {list(shape)}")
            return np.zeros(shape, np.float32)
        return array

    def skip(self, key: str) -> None:
        """Lets a key be there or not: nothing reads it."""
        self.used.add(key)

    def finish(self) -> None:
        unexpected = sorted(
            key for key in set(self.arrays) - self.used if not key.endswith("num_batches_tracked")
        )
        complaints = [
            f"{kind}: {', '.join(keys)}"
            for kind, keys in (
                ("missing", sorted(self.missing)),
                ("unexpected", unexpected),
                ("wrong shape", sorted(self.misshapen)),
            )
            if keys
        ]
        if complaints:
            raise UserError(f"the checkpoint does not fit the model; {'; '.join(complaints)}")

    def linear(self, prefix: str, width: int, out: int) -> Tree:
        return {
            "kernel": self.take(f"{prefix}.weight", out, width).T,
            "bias": self.take(f"{prefix}.bias", out),
        }

    def embedding(self, table_prefix: str, numerical_prefix: str) -> Tree:
        dim, tree = self.model.embedding_dim, {}
        if self.vocabularies:
            rows = sum(self.raw_field_sizes)
            table = self.take(f"{table_prefix}.embedding.weight", rows, dim)
            starts = np.cumsum([0, *self.raw_field_sizes[:-1]])
            known = [
                table[start + np.asarray(values, np.int64)]
                for start, values in zip(starts, self.vocabularies, strict=True)
            ]
            embedding = np.concatenate(
                [part for rows in known for part in (rows.mean(axis=0, keepdims=True), rows)]
            )
            unused = table_rows(self.model.field_sizes) - len(embedding)
            tree["embedding"] = np.pad(embedding, ((0, unused), (0, 0)))
        if self.model.num_numerical:
            numerical = self.linear(numerical_prefix, self.model.num_numerical, dim)
            tree["numerical_kernel"], tree["numerical_bias"] = (
                numerical["kernel"],
                numerical["bias"],
            )
        return tree

    def bank(
        self,
        prefixes: Sequence[str],
        width: int,
        widths: Sequence[int],
        outputs: int | None = None,
    ) -> tuple[Tree, Tree]:
        """Parameters and statistics of a bank from the sequences `prefix.0`, `prefix.1`, ...

        Every hidden layer takes four places there: dense, batch norm, ReLU, dropout.
        """
        params, stats = {}, {}
        for index, out in enumerate(widths):
            dense, norm = 4 * index, 4 * index + 1
            params[f"layer_{index}"] = _stack(
                self.linear(f"{prefix}.{dense}", width, out)
                | {
                    "scale": self.take(f"{prefix}.{norm}.weight", out),
                    "shift": self.take(f"{prefix}.{norm}.bias", out),
                }
                for prefix in prefixes
            )
            stats[f"layer_{index}"] = _stack(
                {
                    "mean": self.take(f"{prefix}.{norm}.running_mean", out),
                    "variance": self.take(f"{prefix}.{norm}.running_var", out),
                }
                for prefix in prefixes
            )
            width = out
        if outputs is not None:
            last = 4 * len(widths)
            params["output"] = _stack(
                self.linear(f"{prefix}.{last}", width, outputs) for prefix in prefixes
            )
        return params, stats

    def generated(self, number: int, trunk: int, width: int, out: int) -> Tree:
        """A generated layer; the original emits its kernel as rows of `[out, width]`."""
        kernel = self.take(f"hypter.gate_weights{number}.weight", out * width, trunk)
        offset = self.take(f"hypter.gate_weights{number}.bias", out * width)
        bias = self.linear(f"hypter.gate_bias{number}", trunk, out)
        return {
            "kernel": kernel.reshape(out, width, trunk).transpose(2, 1, 0),
            "kernel_offset": offset.reshape(out, width).T,
            "bias": bias["kernel"],
            "bias_offset": bias["bias"],
        }


def _stack(trees: Any) -> Tree:
    trees = list(trees)
    return {key: np.stack([tree[key] for tree in trees]) for key in trees[0]}


def _variables(params: Tree, banks: Mapping[str, tuple[Tree, Tree]]) -> dict[str, Tree]:
    stats = {name: bank[1] for name, bank in banks.items() if bank[1]}
    return {
        "params": params | {name: bank[0] for name, bank in banks.items()},
        "batch_stats": stats,
    }


def _names(prefix: str, count: int, suffix: str = ".mlp") -> list[str]:
    return [f"{prefix}.{index}{suffix}" for index in range(count)]


def _towers(reader: _Reader, model: MultiTaskModel) -> tuple[Tree, Tree]:
    names = _names("tower", model.num_tasks)
    return reader.bank(names, model.bottom_widths[-1], model.tower_widths, 1)


def _shared_embedding(reader: _Reader) -> Tree:
    return {"embedding": reader.embedding("embedding", "numerical_layer")}


def _singletask(reader: _Reader, model: Any) -> dict[str, Tree]:
    embeddings = {
        f"embeddings_{task}": reader.embedding(f"embedding.{task}", f"numerical_layer.{task}")
        for task in range(model.num_tasks)
    }
    bottoms = reader.bank(
        _names("bottom", model.num_tasks), reader.input_width, model.bottom_widths
    )
    return _variables(embeddings, {"bottoms": bottoms, "towers": _towers(reader, model)})


def _sharedbottom(reader: _Reader, model: Any) -> dict[str, Tree]:
    bottom = reader.bank(["bottom.mlp"], reader.input_width, model.bottom_widths)
    return _variables(
        _shared_embedding(reader), {"bottom": bottom, "towers": _towers(reader, model)}
    )


def _experts(reader: _Reader, model: Any) -> dict[str, tuple[Tree, Tree]]:
    names = _names("expert", model.num_experts)
    return {
        "experts": reader.bank(names, reader.input_width, model.bottom_widths),
        "towers": _towers(reader, model),
    }


def _omoe(reader: _Reader, model: Any) -> dict[str, Tree]:
    gate = {"gate": reader.linear("gate.0", reader.input_width, model.num_experts)}
    return _variables(_shared_embedding(reader) | gate, _experts(reader, model))


def _mmoe(reader: _Reader, model: Any) -> dict[str, Tree]:
    names = _names("gate", model.num_tasks, "")
    gates = reader.bank(names, reader.input_width, (), model.num_experts)
    return _variables(_shared_embedding(reader), _experts(reader, model) | {"gates": gates})


def _pomoe(reader: _Reader, model: Any) -> dict[str, Tree]:
    if (model.gate, model.gate_scope, model.gate_depth) != ("features", "shared", 2):
        raise UserError("the PyTorch original's pomoe has one shared gate of two generated layers")
    widths = (model.num_tasks, *model.code_widths)
    trunk = {
        f"layer_{index}": reader.linear(
            f"hypter.ray_mlp.{2 * index}", widths[index], widths[index + 1]
        )
        for index in range(len(model.code_widths))
    }
    experts, code = model.num_experts, model.code_widths[-1]
    gate = {
        "layer_0": reader.generated(1, code, reader.input_width, experts),
        "layer_1": reader.generated(2, code, experts, experts),
    }
    params = _shared_embedding(reader) | {"preference_network": trunk, "gates_0": gate}
    return _variables(params, _experts(reader, model))


def _ple(reader: _Reader, model: Any) -> dict[str, Tree]:
    shared, own, tasks = model.num_shared_experts, model.num_task_experts, model.num_tasks
    last = len(model.bottom_widths) - 1
    width, banks = reader.input_width, {"towers": _towers(reader, model)}
    for level, out in enumerate(model.bottom_widths):
        banks[f"shared_experts_{level}"] = reader.bank(
            _names(f"share_experts.{level}", shared), width, (out,)
        )
        banks[f"task_experts_{level}"] = reader.bank(
            [name for task in range(tasks) for name in _names(f"task_experts.{level}.{task}", own)],
            width,
            (out,),
        )
        banks[f"task_gates_{level}"] = reader.bank(
            _names(f"task_gates.{level}", tasks, ""), width, (), own + shared
        )
        if level < last:
            banks[f"shared_gates_{level}"] = reader.bank(
                [f"share_gates.{level}"], width, (), tasks * own + shared
            )
        width = out
    for part in ("weight", "bias"):
        reader.skip(f"share_gates.{last}.0.{part}")
    return _variables(_shared_embedding(reader), banks)


def _aitm(reader: _Reader, model: Any) -> dict[str, Tree]:
    names, width = _names("bottom", model.num_tasks), model.bottom_widths[-1]
    params = _shared_embedding(reader)
    attention = {
        name: reader.linear(key, width, width)
        for name, key in (("value", "h1"), ("key", "h2"), ("query", "h3"))
    }
    if model.num_tasks > 1:  # A single task attends to nothing.
        params |= attention
    for index in range(model.num_tasks - 1):
        params[f"transfers_{index}"] = reader.linear(f"g.{index}", width, width)
    bottoms = reader.bank(names, reader.input_width, model.bottom_widths)
    return _variables(params, {"bottoms": bottoms, "towers": _towers(reader, model)})


def _metaheac(reader: _Reader, model: Any) -> dict[str, Tree]:
    dim = model.embedding_dim
    experts = reader.bank(
        _names("model.expert", model.num_experts), reader.input_width, model.bottom_widths
    )
    critics = reader.bank(
        _names("model.critic", model.num_critics), model.bottom_widths[-1], model.tower_widths, 1
    )
    params = {
        "embedding": reader.embedding("model.embedding", "model.numerical_layer"),
        "task_embedding": reader.take("model.task_embedding.weight", model.num_tasks, dim),
        "expert_gate": reader.linear("model.expert_gate.0", 2 * dim, model.num_experts),
        "critic_gate": reader.linear("model.critic_gate.0", 2 * dim, model.num_critics),
    }
    return _variables(params, {"experts": experts, "critics": critics})


_LAYOUTS: dict[str, Callable[[_Reader, Any], dict[str, Tree]]] = {
    "aitm": _aitm,
    "metaheac": _metaheac,
    "mmoe": _mmoe,
    "omoe": _omoe,
    "ple": _ple,
    "pomoe": _pomoe,
    "sharedbottom": _sharedbottom,
    "singletask": _singletask,
}


def import_checkpoint(
    checkpoint: Path,
    store: Store,
    workdir: Path,
    config: Config,
    raw_field_sizes: Sequence[int] | None = None,
) -> None:
    """Makes a workdir of a checkpoint of the original: to evaluate, and to train further.

    Args:
      checkpoint: A `state_dict` that the original saved with `torch.save`.
      store: Data with the vocabulary of raw ids that the original's table is indexed by.
      workdir: The folder to make.
      config: Of the model that the checkpoint holds.
      raw_field_sizes: See `convert`.

    Raises:
      UserError: the file can't be read or does not fit the model, or the folder holds a run.
    """
    if (workdir / "config.json").exists():
        raise UserError(f"--workdir {workdir}: holds a run already; take another folder")
    state_dict = _load_state_dict(checkpoint)
    run = resolve(config, store.schema, store.split("train"))
    vocabularies = [store.vocabulary(field.name).to_pylist() for field in store.schema.categorical]
    variables = convert(
        state_dict, config["model"]["name"], run.model, vocabularies, raw_field_sizes
    )
    state = first_state(run)
    placed = jax.tree.map(
        lambda old, new: jax.device_put(jnp.asarray(new, old.dtype), old.sharding),
        state.variables,
        {"batch_stats": {}} | variables,
    )
    with workdirs.open_workdir(workdir, run.config, store, state_template(run)):
        checkpoints = Checkpoints(workdir)
        progress = Progress(data_fingerprint=store.fingerprint)
        checkpoints.save_best(placed, 0, progress)
        checkpoints.save_latest(state.replace(**placed), progress)
        checkpoints.close()


def _load_state_dict(path: Path) -> Mapping[str, Any]:
    with cli.needs_extra("torch"):
        import torch
    try:
        # weights_only: a pickle could run code, a state dict of tensors can't.
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except Exception as error:  # whatever a damaged file makes the reader raise
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{path}: not a PyTorch state dict of tensors ({reason})") from error
    if not isinstance(state_dict, Mapping):
        raise UserError(f"{path}: holds a {type(state_dict).__name__}, not a state dict")
    return state_dict


def _parse_sizes(text: str) -> list[int]:
    try:
        return [int(size) for size in text.split(",")]
    except ValueError as error:
        raise UserError(f"--field-sizes {text}: give whole numbers, comma between") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
      UserError: see `import_checkpoint`.
    """
    parser = cli.new_parser("torch_import", __doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="state dict (.pt)")
    parser.add_argument("--model", required=True, choices=sorted(_LAYOUTS))
    parser.add_argument(
        "--schema",
        "--store",
        dest="store",
        type=Path,
        required=True,
        help="folder of the prepared data that it was trained on; the schema and the ids are in it",
    )
    parser.add_argument("--workdir", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--config", default="configs/base.py", help="config file (default: configs/base.py)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="config values where the checkpoint differs, such as model.num_experts=8",
    )
    parser.add_argument(
        "--field-sizes",
        help="rows of each field in the original's embedding table, comma between (default: the "
        "largest id seen in training plus 1)",
    )
    arguments = parser.parse_args(argv)
    original = {"model.name": arguments.model, "data.store": str(arguments.store)}
    if arguments.model == "metaheac":
        original["model.output"] = "mean"
    preset = "original" if arguments.model == "pomoe" else "default"
    config = cli.read_config(arguments.config, preset, original, arguments.overrides)
    sizes = _parse_sizes(arguments.field_sizes) if arguments.field_sizes else None
    store = Store.open(arguments.store)
    import_checkpoint(arguments.checkpoint, store, arguments.workdir, config, sizes)
    print(
        f"imported to {arguments.workdir}; next: python evaluate.py --workdir {arguments.workdir}"
    )
    return 0


if __name__ == "__main__":
    cli.exit_on_user_error(main)
