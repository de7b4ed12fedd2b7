"""Compares exchanged rows with the simple lookup on 8 simulated devices; prints the differences.

python -m tests.parallel.run_exchange
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hyperrec_jax.data.inputs import Inputs, Lookup, PooledIds
from hyperrec_jax.models.features import FeatureEmbedding
from hyperrec_jax.models.tables import Own
from hyperrec_jax.parallel.exchange import AXES, Exchange, _room, gather_rows, write_rows

ROWS, WIDTH, IDS = 2048, 2, (512, 2)
MESHES = {"1": (1, 1), "2": (2, 1), "4": (2, 2), "8": (8, 1)}
"""Devices along `data` and `expert`."""
KINDS = ("even", "one id", "one owner")
"""See `ids_of`."""


def ids_of(kind: str) -> np.ndarray:
    """Ids that fall on owners evenly, all ask for one row, or ask one owner for many."""
    rng = np.random.default_rng(0)
    return {
        "even": rng.integers(0, ROWS, IDS),
        "one id": np.full(IDS, ROWS - 1),
        "one owner": rng.integers(ROWS // 8, ROWS // 4, IDS),
    }[kind].astype(np.int32)


def main() -> dict[str, Any]:
    """Largest difference from the simple lookup, for each mesh, kind of ids and result."""
    rng = np.random.default_rng(1)
    table = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    factors = rng.normal(size=(*IDS, WIDTH)).astype(np.float32)
    places = np.arange(ROWS - 512, ROWS + 512, dtype=np.int32)  # half of them outside
    values = rng.normal(size=(len(places), WIDTH)).astype(np.float32)

    def results(exchange: Exchange | None, table: jax.Array, ids: jax.Array) -> dict[str, Any]:
        def loss(table: jax.Array) -> jax.Array:
            return (jnp.sin(gather_rows(table, ids, exchange)) * factors).sum()

        def squared(table: jax.Array) -> jax.Array:
            return (jax.grad(loss)(table) ** 2).sum()

        return {
            "rows": gather_rows(table, ids, exchange),
            "gradient": jax.grad(loss)(table),
            "second gradient": jax.grad(squared)(table),
            "written": write_rows(table, places, values, exchange),
        }

    compute = jax.jit(results, static_argnums=0)
    expected = {kind: compute(None, table, ids_of(kind)) for kind in KINDS}
    found: dict[str, Any] = {}
    for name, shape in MESHES.items():
        devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
        mesh = Mesh(devices, AXES, (AxisType.Auto,) * 2)
        exchange = Exchange(mesh, ROWS)
        split = jax.device_put(table, NamedSharding(mesh, PartitionSpec(AXES)))
        for kind in KINDS:
            ids = jax.device_put(ids_of(kind), NamedSharding(mesh, PartitionSpec("data")))
            got = compute(exchange, split, ids)
            assert got["rows"].shape == (*IDS, WIDTH)
            found[f"{name}, {kind}"] = {
                key: _difference(value, expected[kind][key]) for key, value in got.items()
            }
        if name == "4":
            found["embedding"] = _embedding_differs(exchange)
    return found | {"room": _room(int(np.prod(IDS)) // 8, 8)}


def _embedding_differs(exchange: Exchange) -> list[float]:
    """Outputs of all fields, and gradients of the joint table and of another."""
    inputs = Inputs(
        direct=(0, 1, 2),
        shared=(Lookup(3, 0),),
        pooled=(PooledIds(0, 3, "target_attention", Lookup(0, 0)), PooledIds(0, 2, "mean")),
    )
    sizes = (2000, ROWS, 48)
    rng = np.random.default_rng(2)
    batch = {
        "categorical": np.stack([rng.integers(0, sizes[f], 32) for f in (0, 1, 2, 0)], axis=1),
        "multivalued": rng.integers(-1, 2000, (32, 5)),
        "numerical": np.ones((32, 1), np.float32),
    }
    simple = FeatureEmbedding(sizes, 1, WIDTH, inputs=inputs, own=((1, Own(4)),))
    params = simple.init(jax.random.key(0), batch)

    def value(module: FeatureEmbedding) -> Any:
        def loss(params: Any) -> jax.Array:
            return jnp.sin(9 * module.apply(params, batch).concatenate()).sum()

        return jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(params))

    pairs = zip(value(simple.clone(exchange=exchange)), value(simple), strict=True)
    return [_difference(*pair) for pair in pairs]


def _difference(got: jax.Array, expected: jax.Array) -> float:
    """The largest, as a share of the largest value."""
    return float(np.abs(np.asarray(got) - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    print(json.dumps(main()))
