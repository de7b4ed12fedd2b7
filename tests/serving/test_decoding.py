"""The JSON of a request: what Python's decoder makes of it, in bounded pieces."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperrec_jax.serving import decoding
from hyperrec_jax.serving.decoding import MAX_ROW_CHARACTERS, decode_request
from hyperrec_jax.serving.refusal import Refused

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
SCALARS = SCALARS.filter(lambda value: value not in (float("inf"), -float("inf")))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)
ROWS = st.lists(
    st.dictionaries(TEXT, VALUES, max_size=3)
    | st.fixed_dictionaries({"a": SCALARS, "b": SCALARS, "c": VALUES}),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(ROWS, VALUES, st.sampled_from([None, 2]), st.booleans(), st.booleans())
def test_it_is_pythons_decoder(rows, preference, indent, ascii_only, preference_first):
    values = {"rows": rows, "preference": preference}
    if preference_first:
        values = dict(reversed(values.items()))
    body = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode()
    nested = any(isinstance(row.get(name), list | dict) for row in rows for name in "ab")
    if nested:
        with pytest.raises(Refused, match="is neither text nor a number"):
            decode_request(body, ["a", "b"], 5)
        return
    found, given_preference = decode_request(body, ["a", "b"], 5)
    expected = [{name: row[name] for name in ("a", "b") if name in row} for row in rows]
    assert (found, given_preference) == (expected, preference)


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, 60))
def test_whatever_comes_is_read_or_refused(noise, at):
    body = b'{"rows": [{"a": 1.5, "b": "x"}], "preference": [1, 2]}'
    body = body[:at] + noise + body[at:]
    try:
        found = decode_request(body, ["a", "b"], 5)
    except Refused as refusal:
        found, message = None, str(refusal)
    else:
        message = ""
    assert "\n" not in message
    assert len(message) < 300
    if found is not None:
        values = json.loads(body)
        assert found[1] == values.get("preference")
        kept = [{k: v for k, v in row.items() if k in ("a", "b")} for row in values["rows"]]
        assert found[0] == kept


@pytest.mark.parametrize("filling", ["[],", "[[[[]]]],", '{"a":[]},', "1,"])
def test_no_piece_is_larger_than_a_row_may_be(filling, monkeypatch):
    pieces = []

    class Recording(json.JSONDecoder):
        def raw_decode(self, text, idx=0):
            pieces.append(len(text))
            return super().raw_decode(text, idx)

    monkeypatch.setattr(decoding, "_DECODER", Recording())
    many = filling * ((8 << 20) // len(filling))
    for body in (
        f'{{"rows": [{many}1]}}',
        f'{{"rows": [{{"a": [{many}1]}}]}}',
        f'{{"preference": [{many}1]}}',
        f'{{{many}"rows": 1}}',
        f"[{many}1]",
    ):
        pieces.clear()
        with pytest.raises(Refused):
            decode_request(body.encode(), ["a"], 1000)
        assert max(pieces) <= MAX_ROW_CHARACTERS
        # A value that is cut is tried twice; no more than the rows that are allowed are decoded.
        assert len(pieces) <= 2 * 1000 + 4


def test_a_long_row_is_read_up_to_the_limit():
    for size, fine in (
        (5000, True),
        (MAX_ROW_CHARACTERS - 9, True),
        (MAX_ROW_CHARACTERS - 8, False),
    ):
        body = json.dumps({"rows": [{"a": "x" * size}, {"a": "y"}]}).encode()
        if fine:
            rows, _ = decode_request(body, ["a"], 2)
            assert rows == [{"a": "x" * size}, {"a": "y"}]
        else:
            with pytest.raises(Refused, match="row 1 is longer than 262,144 characters"):
                decode_request(body, ["a"], 2)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Expecting value, at character 1"),
        (b'{"rows": [{"a": 1}', "expecting , or ], at character 19"),
        (b'{"rows": [{"a": 1}]} x', "expecting the end, at character 22"),
        (b'{"rows" [{"a": 1}]}', 'expecting "key": value'),
        (b'{"rows": [{"a": nan}]}', "Expecting value, at character 17"),
        (b'{"rows": [{"a": 1}], "preference": Infinity}', "Infinity is no number of JSON"),
        (b'{"rows": [{"a": ' + b"9" * 5000 + b"}]}", "Exceeds the limit"),
        (b'{"rows": [{"a": 1}], "rows": [{"a": 2}]}', "rows: given twice"),
        (b'\xff{"rows": [{"a": 1}]}', r"not UTF-8 \(byte 1\)"),
        ('{"rows": [{"a": 1}]}'.encode("utf-16"), "not UTF-8"),
        (b'{"rows": [{"a": "\xed\xa0\x80"}]}', "not UTF-8"),
        (b'{"rows": [' + b"[" * 100_000, "nested too deeply"),
        (b'{"' + b"k" * 2_000 + b'": 1}', r"unknown key 'k{79}\.\.\.; there are"),
        (b'{"preference": 1}', "the body must be"),
        (b"{}", "the body must be"),
        (b"3", "the body must be"),
    ],
)
def test_what_is_wrong_is_told(body, message):
    with pytest.raises(Refused, match=message):
        decode_request(body, ["a"], 2)


def test_a_byte_order_mark_is_passed_over():
    assert decode_request('\ufeff{"rows": [{"a": 1}]}'.encode(), ["a"], 2) == ([{"a": 1}], None)
