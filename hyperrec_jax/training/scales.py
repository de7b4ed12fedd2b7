"""Weights that read numbers, and their gradients, converted from one scale to another.

With `x = (f - m) / s` before and `y = (f - n) / t` now, `x = y t / s + (n - m) / s`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hyperrec_jax.data.encode import vector_scale
from hyperrec_jax.data.schema import NumericalField, Schema

Scale = tuple[np.ndarray, np.ndarray]
"""Mean and standard deviation of some numbers."""

Scales = Mapping[str, tuple[Scale, Scale]]
"""The scales before and now of what each kernel of a model reads, by the kernel's name. Its bias
stands beside it, with `bias` for `kernel` in its name."""

_Convert = Callable[[np.ndarray, np.ndarray, Scale, Scale], tuple[np.ndarray, np.ndarray]]


def scales_of(old: Schema, new: Schema) -> Scales:
    """The scales of all numbers and vectors of two schemas with the same fields."""
    scales = {"numerical_kernel": (_scale(old.numerical), _scale(new.numerical))}
    for index, (before, now) in enumerate(zip(old.vectors, new.vectors, strict=True)):
        scales[f"vector_kernel_{index}"] = (vector_scale(before), vector_scale(now))
    return scales


def rescaled(params: Any, scales: Scales) -> Any:
    """Parameters that read numbers of another scale as the old ones read theirs.

    The rows of a kernel are multiplied by `t / s`, and its bias takes the rest.

    Args:
      params: Nested dictionaries, with kernel `[number, dim]` and bias `[dim]` side by side
        wherever the model reads numbers or vectors.
      scales: The scales of the data that they were trained with, and of the data to come.
    """

    def convert(
        kernel: np.ndarray, bias: np.ndarray, before: Scale, now: Scale
    ) -> tuple[np.ndarray, np.ndarray]:
        (mean, std), (new_mean, new_std) = before, now
        return kernel * (new_std / std)[:, None], bias + (new_mean - mean) / std @ kernel

    return _converted(params, scales, convert)


def scaled_gradients(gradients: Any, scales: Scales, power: int) -> Any:
    """Mean gradients by the parameters that `rescaled` gives, or their mean squares.

    With `y = x s / t - (n - m) / t`, the gradient by a row of the new kernel is `s / t` times that
    by the old row, less `(n - m) / t` times that by the bias.

    Args:
      gradients: In the form of the parameters.
      scales: As for `rescaled`.
      power: 1 for means; 2 for mean squares, whose two parts are taken as uncorrelated.
    """

    def convert(
        kernel: np.ndarray, bias: np.ndarray, before: Scale, now: Scale
    ) -> tuple[np.ndarray, np.ndarray]:
        (mean, std), (new_mean, new_std) = before, now
        of_kernel = (std / new_std)[:, None] ** power
        of_bias = ((mean - new_mean) / new_std)[:, None] ** power
        return kernel * of_kernel + of_bias * bias, bias

    return _converted(gradients, scales, convert)


def _converted(params: Any, scales: Scales, convert: _Convert) -> Any:
    if not isinstance(params, Mapping):
        return params
    result = {key: _converted(value, scales, convert) for key, value in params.items()}
    for name, (before, now) in scales.items():
        other = name.replace("kernel", "bias")
        if name in params and other in params:
            kernel, bias = (np.asarray(params[each], np.float64) for each in (name, other))
            kernel, bias = convert(kernel, bias, before, now)
            result[name] = kernel.astype(params[name].dtype)
            result[other] = bias.astype(params[other].dtype)
    return result


def _scale(fields: Sequence[NumericalField]) -> Scale:
    return np.array([field.mean for field in fields]), np.array([field.std for field in fields])
