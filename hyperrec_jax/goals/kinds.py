"""The kinds of goal, each registered in a file of its own."""

from hyperrec_jax.goals.base import Goal
from hyperrec_jax.registry import Registry

GOALS: Registry[Goal] = Registry("kind of goal", "hyperrec_jax.goals")
"""Goal classes by kind."""
