"""Preference-conditioned multi-task recommendation in JAX.

The whole job in a notebook:

    from hyperrec_jax import fit, prepare

    store = prepare(frame, "data/shop", categorical=["item"], labels=["click", "buy"])
    model = fit(store, "runs/shop")
    front = model.evaluate()
    model.plot("front.png", front)
    choice = model.suggest("best:buy,click=1%")
    scores = model.predict(frame, choice.preference)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperrec_jax.api.fit import fit
    from hyperrec_jax.api.load import load
    from hyperrec_jax.api.model import Model
    from hyperrec_jax.api.prepare import prepare
    from hyperrec_jax.evaluation.choice import suggest_preference
    from hyperrec_jax.reports.plots import plot

__version__ = "0.1.0"
__all__ = ["Model", "fit", "load", "plot", "prepare", "suggest_preference"]

_HOMES = {
    "fit": "api.fit",
    "load": "api.load",
    "Model": "api.model",
    "plot": "reports.plots",
    "prepare": "api.prepare",
    "suggest_preference": "evaluation.choice",
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use: serving never loads the training code."""
    if name not in _HOMES:
        raise AttributeError(f"module 'hyperrec_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hyperrec_jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
