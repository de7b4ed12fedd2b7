"""Where each model's parameters stand in a state dict of the original, one function per model."""

from collections.abc import Callable, Mapping
from typing import Any

from hyperrec_jax.errors import UserError
from hyperrec_jax.models.base import MultiTaskModel
from hyperrec_jax.training.torch_import.reader import StateReader, Tree


def _variables(params: Tree, banks: Mapping[str, tuple[Tree, Tree]]) -> dict[str, Tree]:
    stats = {name: bank[1] for name, bank in banks.items() if bank[1]}
    return {
        "params": params | {name: bank[0] for name, bank in banks.items()},
        "batch_stats": stats,
    }


def _names(prefix: str, count: int, suffix: str = ".mlp") -> list[str]:
    return [f"{prefix}.{index}{suffix}" for index in range(count)]


def _towers(reader: StateReader, model: MultiTaskModel) -> tuple[Tree, Tree]:
    names = _names("tower", model.num_tasks)
    return reader.bank(names, model.bottom_widths[-1], model.tower_widths, 1)


def _shared_embedding(reader: StateReader) -> Tree:
    return {"embedding": reader.embedding("embedding", "numerical_layer")}


def _singletask(reader: StateReader, model: Any) -> dict[str, Tree]:
    embeddings = {
        f"embeddings_{task}": reader.embedding(f"embedding.{task}", f"numerical_layer.{task}")
        for task in range(model.num_tasks)
    }
    bottoms = reader.bank(
        _names("bottom", model.num_tasks), reader.input_width, model.bottom_widths
    )
    return _variables(embeddings, {"bottoms": bottoms, "towers": _towers(reader, model)})


def _sharedbottom(reader: StateReader, model: Any) -> dict[str, Tree]:
    bottom = reader.bank(["bottom.mlp"], reader.input_width, model.bottom_widths)
    return _variables(
        _shared_embedding(reader), {"bottom": bottom, "towers": _towers(reader, model)}
    )


def _experts(reader: StateReader, model: Any) -> dict[str, tuple[Tree, Tree]]:
    names = _names("expert", model.num_experts)
    return {
        "experts": reader.bank(names, reader.input_width, model.bottom_widths),
        "towers": _towers(reader, model),
    }


def _omoe(reader: StateReader, model: Any) -> dict[str, Tree]:
    gate = {"gate": reader.linear("gate.0", reader.input_width, model.num_experts)}
    return _variables(_shared_embedding(reader) | gate, _experts(reader, model))


def _mmoe(reader: StateReader, model: Any) -> dict[str, Tree]:
    names = _names("gate", model.num_tasks, "")
    gates = reader.bank(names, reader.input_width, (), model.num_experts)
    return _variables(_shared_embedding(reader), _experts(reader, model) | {"gates": gates})


def _pomoe(reader: StateReader, model: Any) -> dict[str, Tree]:
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


def _ple(reader: StateReader, model: Any) -> dict[str, Tree]:
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


def _aitm(reader: StateReader, model: Any) -> dict[str, Tree]:
    names, width = _names("bottom", model.num_tasks), model.bottom_widths[-1]
    params = _shared_embedding(reader)
    attention = {
        name: reader.linear(key, width, width)
        for name, key in (("value", "h1"), ("key", "h2"), ("query", "h3"))
    }
    if model.num_tasks > 1:  # A single goal attends to nothing.
        params |= attention
    for index in range(model.num_tasks - 1):
        params[f"transfers_{index}"] = reader.linear(f"g.{index}", width, width)
    bottoms = reader.bank(names, reader.input_width, model.bottom_widths)
    return _variables(params, {"bottoms": bottoms, "towers": _towers(reader, model)})


def _metaheac(reader: StateReader, model: Any) -> dict[str, Tree]:
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


LAYOUTS: dict[str, Callable[[StateReader, Any], dict[str, Tree]]] = {
    "aitm": _aitm,
    "metaheac": _metaheac,
    "mmoe": _mmoe,
    "omoe": _omoe,
    "ple": _ple,
    "pomoe": _pomoe,
    "sharedbottom": _sharedbottom,
    "singletask": _singletask,
}
