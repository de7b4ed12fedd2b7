"""The page of `hyperrec explore`, and the request that it makes."""

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from hyperrec_jax.errors import UserError
from hyperrec_jax.preference.grid import normalise
from hyperrec_jax.reports.page import render
from hyperrec_jax.serving.explorer.answers import Explorer

MESSAGE = 300
"""Characters of a message: what a user typed is not repeated without an end."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src data:; connect-src 'self'"
}


def create_app(explorer: Explorer) -> Starlette:
    """The application: `/` and `/at?preference=0.3,0.7&list=0&baseline=0.5,0.5`."""
    page = render(explorer.front, explorer.details, live=True)

    async def index(request: Request) -> Response:
        return HTMLResponse(page, headers=_HEADERS)

    # Not async: it runs in a thread, so that the page stays reachable meanwhile.
    def at(request: Request) -> Response:
        def weights(name: str, default: str) -> np.ndarray:
            texts = request.query_params.get(name, default).split(",")
            return normalise(np.array(texts, np.float64), len(explorer.tasks), name)

        try:
            equal = ",".join("1" for _ in explorer.tasks)
            chosen = int(request.query_params.get("list", "0"))
            return JSONResponse(
                explorer.at(weights("preference", ""), chosen, weights("baseline", equal))
            )
        except (UserError, ValueError) as error:
            return JSONResponse({"error": str(error)[:MESSAGE]}, 422)

    return Starlette(routes=[Route("/", index), Route("/at", at)])
