from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperrec_jax.data.text import UnreadableValue
from hyperrec_jax.data.times import moment, to_times

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MODERN = st.datetimes(datetime(1991, 1, 1), datetime(2199, 1, 1))


def _microseconds(stamp):
    return (stamp - EPOCH) // timedelta(microseconds=1)


@given(st.lists(MODERN, min_size=1, max_size=5))
def test_a_moment_is_the_same_in_every_form(stamps):
    whole = [stamp.replace(microsecond=0, tzinfo=UTC) for stamp in stamps]
    expected = [_microseconds(stamp) for stamp in whole]
    seconds = [int(stamp.timestamp()) for stamp in whole]
    east = timezone(timedelta(hours=5, minutes=30))
    forms = [
        pa.array([stamp.isoformat() for stamp in whole]),
        pa.array([stamp.strftime("%Y-%m-%d %H:%M:%S") for stamp in whole]),
        pa.array([stamp.astimezone(east).isoformat() for stamp in whole]),
        pa.array([stamp.isoformat() for stamp in whole]).dictionary_encode(),
        pa.array(seconds),
        pa.array([str(second) for second in seconds]),
        pa.array([float(second) for second in seconds]),
        pa.array([second * 1000 for second in seconds]),
        pa.array([second * 10**6 for second in seconds]),
        pa.array([second * 10**9 for second in seconds]),
        pa.array([stamp.replace(tzinfo=None) for stamp in whole], pa.timestamp("s")),
        pa.array([stamp.replace(tzinfo=None) for stamp in whole], pa.timestamp("ns")),
        pa.array(whole, pa.timestamp("ms", tz="Asia/Tokyo")),
    ]
    for form in forms:
        assert to_times(form).tolist() == expected


def test_dates_and_units():
    days = pa.array([datetime(2026, 1, 31).date()])
    assert moment(to_times(days)[0]) == "2026-01-31 00:00:00"
    assert to_times(pa.array(["2026-01-31"])) == to_times(days)
    assert to_times(pa.array([0.0, 30.0]), "d").tolist() == [0, 30 * 86_400_000_000]
    assert to_times(pa.array(["7"]), "w").tolist() == [49 * 86_400_000_000]


@pytest.mark.parametrize(
    ("values", "row", "why"),
    [
        (pa.array(["2026-01-31", "soon"]), 1, "write it as"),
        (pa.array(["2026-01-31", ""]), 1, "every row needs one"),
        (pa.array([1_700_000_000, None]), 1, "every row needs one"),
        (pa.array([1_700_000_000, 20260131]), 1, "write dates as 2026-01-31"),
        (pa.array([1_700_000_000.0, np.nan]), 1, "since 1970"),
        (pa.array(["20260131"]), 0, "write dates as 2026-01-31"),
        (pa.array([True]), 0, "of type bool"),
        (pa.array(["2026-02-30"]), 0, "write it as"),
    ],
)
def test_what_is_no_time_is_refused_with_its_row(values, row, why):
    with pytest.raises(UnreadableValue, match=why) as error:
        to_times(values)
    assert error.value.row == row
