"""What a model reads of a time: the hour and the day of the week in UTC, and the age in days.

`prepare` and serving both derive the fields here, from microseconds since 1970. The age needs the
newest training time, which is known once all rows are read; until then the time stands in its place
as a float64 of microseconds, exact for the years 1685 to 2255.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from hyperrec_jax.data.times import UNITS

DAY = int(UNITS["d"])
"""Microseconds in a day."""

_HOUR = int(UNITS["h"])
_HOURS = [str(hour) for hour in range(24)]
_WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_THURSDAY = 3  # 1970-01-01 was one


def hour_and_weekday(times: np.ndarray) -> tuple[pa.Array, pa.Array]:
    """The hour, `0` to `23`, and the day of the week, `Monday` to `Sunday`, in UTC.

    Args:
      times: Microseconds since 1970, int64 `[row]`.

    Returns:
      Texts `[row]` of both.
    """
    hours = times % DAY // _HOUR
    weekdays = (times // DAY + _THURSDAY) % 7
    # Arrays of Arrow are made here and not at the top: for the first one it imports pandas.
    return pa.array(_HOURS).take(pa.array(hours)), pa.array(_WEEKDAYS).take(pa.array(weekdays))


def age_days(times: np.ndarray, newest: int) -> np.ndarray:
    """Days from each time to the newest training time, negative for later ones: float64 `[row]`.

    Args:
      times: Microseconds since 1970, int64 or float64 `[row]`.
      newest: The newest time of the training rows, in the same unit.
    """
    return (newest - times.astype(np.float64)) / DAY


def with_ages(numerical: np.ndarray, newest: Sequence[int]) -> np.ndarray:
    """Numbers of raw rows with ages in place of their times.

    Args:
      numerical: Numbers `[row, number]`; the last columns are times in microseconds since 1970.
      newest: The newest training time of each of these columns.
    """
    if not newest:
        return numerical
    numerical = numerical.copy()
    first = numerical.shape[1] - len(newest)
    for column, latest in enumerate(newest, first):
        numerical[:, column] = age_days(numerical[:, column], latest)
    return numerical
