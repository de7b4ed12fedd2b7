"""Goals, by kind: `create_goal("binary", "click")`."""

from hyperrec_jax.goals.base import Goal, Metric, RowGoal, Rows
from hyperrec_jax.goals.create import create_goal, goal_options
from hyperrec_jax.goals.kinds import GOALS
from hyperrec_jax.goals.statistics import Moments, Statistics, masked_mean

__all__ = [
    "GOALS",
    "Goal",
    "Metric",
    "Moments",
    "RowGoal",
    "Rows",
    "Statistics",
    "create_goal",
    "goal_options",
    "masked_mean",
]
