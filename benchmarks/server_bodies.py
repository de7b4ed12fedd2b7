"""The fuzz target of the server: bodies of `POST /predict`, sent to the application in pieces.

A valid body is changed at random: a value, a key or a preference becomes one that a server trips
over, or bytes are mutated as in files. Each must be answered by 200 with the predictions that the
model gives for the same JSON, or by a refusal of one short line; anything else is a finding.
"""

import asyncio
import atexit
import json
import random
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pyarrow as pa
from starlette.applications import Starlette

from hyperrec_jax.data.schema import CategoricalField, NumericalField, Schema
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving.http import create_app
from hyperrec_jax.serving.limits import Limits
from hyperrec_jax.serving.predictor import Predictor
from hyperrec_jax.serving.preprocess import Preprocessor

MESSAGE = 500
"""Characters that an answer's message may have: what was sent is repeated up to 80 of them."""
_SECONDS = 60
_MAX_ROWS = 20
_MARK = "\u2021mark\u2021"
_NASTY = (
    *("1e300", "-1e300", "1e39", "-1e39", "3.4e38", "-3.4e38", "1e999", "1e-400", "-0.0", "1.5"),
    *("9" * 400, "9" * 5000, "9223372036854775807", "9223372036854775808", "-9223372036854775809"),
    *("1e18", "1e19", "9007199254740993", "16777217", "7.0", "-1", "0", "01", "0x1", "1."),
    *("NaN", "Infinity", "-Infinity", "nan", "null", "true", "false", "[]", "{}", "[[1]]"),
    *(
        '{"a": 1}',
        '"\\ud800"',
        '"\\udfff\\ud800"',
        '"\\u0000"',
        '"\\n"',
        '""',
        '" "',
        '"7"',
        '"at"',
    ),
    *('"1e5"', '"\\ud83d\\ude00"', '"\u2028"', "'a'", '"', '"\\x"', "[" * 2000, "{" * 50, ""),
    *("[" * 400 + "]" * 400, '"' + "a" * 5000 + '"', '"' + "\u00e9" * 5000 + '"'),
)


def linear_predictor(
    before_scoring: Callable[[], object] = lambda: None,
) -> Predictor:
    """A model of two fields, two numbers and two goals that is no more than a sum of its inputs;
    numbers beyond 1e19 overflow in it, as they do in a network.

    Args:
      before_scoring: Called before each call of the model.
    """

    def each(categorical: np.ndarray, numerical: np.ndarray, preferences: np.ndarray) -> np.ndarray:
        before_scoring()
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.square(numerical).sum(axis=1)
            sums = squares / (1 + squares) + numerical.sum(axis=1) + categorical.sum(axis=1)
            return (sums[:, None] * preferences).astype(np.float32)

    def grid(categorical: np.ndarray, numerical: np.ndarray, preferences: np.ndarray) -> np.ndarray:
        rows = len(categorical)
        return np.stack(
            [each(categorical, numerical, np.tile(weights, (rows, 1))) for weights in preferences]
        )

    schema = Schema(
        source="linear",
        categorical=(CategoricalField("country", 3), CategoricalField("item", 4)),
        numerical=(NumericalField("price", True, 0.5, 2.0), NumericalField("age", missing=40.0)),
        tasks=("click", "buy"),
    )
    vocabulary = (pa.array(["at", "de"]), pa.array([7, 10, 12]))
    versions = {"hyperrec_jax": "0"}
    return Predictor(Preprocessor(schema, vocabulary), grid, each, True, {}, versions)


class RunningApp:
    """An application in an event loop of its own, called without a network."""

    def __init__(self, app: Starlette) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._entered = app.router.lifespan_context(app)
        self._run(self._entered.__aenter__())
        atexit.register(self.close)

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    def post(self, path: str, pieces: list[bytes]) -> tuple[int, bytes]:
        """Status and body of the answer to a body that comes in pieces."""
        return self._run(self._post(path, pieces))  # type: ignore[no-any-return]

    async def _post(self, path: str, pieces: list[bytes]) -> tuple[int, bytes]:
        messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        messages.append({"type": "http.request", "body": b"", "more_body": False})
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"fuzz")],
        }
        call: Callable[..., Awaitable[None]] = self._app
        await call(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])

    def close(self) -> None:
        """Ends the application; the process does so itself at its end."""
        atexit.unregister(self.close)
        self._run(self._entered.__aexit__(None, None, None))
        self._run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class ServerTarget:
    """The server, for `benchmarks.fuzz`: `run` is one example."""

    def __init__(self, mutate: Callable[[bytes, random.Random], bytes]) -> None:
        """Starts the application.

        Args:
          mutate: Changes bytes.
        """
        self._mutate = mutate
        self._predictor = linear_predictor()
        self._app = RunningApp(create_app(self._predictor, Limits(max_rows=_MAX_ROWS)))
        self.send(json.dumps(_valid(random.Random(0))).encode(), random.Random(0))

    def run(self, generator: random.Random) -> None:
        """One example.

        Raises:
          UserError: with the message of the refusal.
          AssertionError: the answer is neither right nor a refusal of one short line.
        """
        body = _with_nasty_value(_valid(generator), generator)
        if generator.random() < 0.3:
            body = self._mutate(body, generator)
        self.send(body, generator)

    def close(self) -> None:
        """Ends the application."""
        self._app.close()

    def send(self, body: bytes, generator: random.Random) -> None:
        """Sends a body and checks the answer."""
        size = generator.choice((1 << 20, 1000, 50))
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        status, text = self._app.post("/predict", pieces)
        answer = json.loads(text)
        if status == 200:
            self._check(json.loads(body), np.array(answer["scores"]))
            return
        message = answer["error"]
        assert status in (400, 413), f"status {status}: {message}"
        assert len(message) <= MESSAGE, f"a message of {len(message)} characters"
        raise UserError(message)

    def _check(self, values: dict[str, Any], scores: np.ndarray) -> None:
        """The answer must be what the model gives for the rows as Python decodes them."""
        preference = values.get("preference")
        if isinstance(preference, dict):
            preference = [preference[task] for task in self._predictor.tasks]
        expected = self._predictor.predict(values["rows"], preference)
        assert np.isfinite(scores).all(), "a score that is not finite"
        assert np.array_equal(scores.astype(np.float32), expected), "other scores than the model's"


def _valid(generator: random.Random) -> dict[str, Any]:
    """What a body may hold."""
    rows = [
        {
            "country": generator.choice(["at", "de", "fr", None]),
            "item": generator.choice([7, 10, 12, 99, None]),
            "price": generator.choice([0, 1.5, 30]),
            "age": generator.choice([18, 40.5, None]),
        }
        | generator.choice([{}, {"other": [1, {"deep": "x"}]}])
        for _ in range(generator.randrange(1, 6))
    ]
    weights = [generator.random(), 1]
    return {"rows": rows} | generator.choice(
        [{}, {"preference": weights}, {"preference": {"click": weights[0], "buy": 1}}]
    )


def _with_nasty_value(values: dict[str, Any], generator: random.Random) -> bytes:
    """The body with a value of one row or column, a key, or the preference replaced."""
    nasty = generator.choice(_NASTY)
    row = generator.choice(values["rows"])
    column = generator.choice(list(row))
    match generator.randrange(8):
        case 0:
            row[_MARK] = row.pop(column)
        case 1:
            values[generator.choice(["preference", "rows", "more"])] = _MARK
        case 2:
            values["preference"] = [_MARK, 1]
        case 3:
            values["preference"] = {"click": _MARK, "buy": 1}
        case 4:
            for each in values["rows"]:
                each[column] = _MARK
        case 5:
            values["rows"].append(_MARK)
        case _:
            row[column] = _MARK
    text = json.dumps(values, ensure_ascii=False, indent=generator.choice([None, 1]))
    return text.replace(f'"{_MARK}"', nasty).encode("utf-8", "surrogatepass")
