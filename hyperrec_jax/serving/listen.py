"""Runs an ASGI application on a socket that is known to be free."""

import contextlib
import socket

import uvicorn
from starlette.applications import Starlette

from hyperrec_jax.errors import UserError


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
      UserError: the address can't be listened on.
    """
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"{host}, port {port}: can't be listened on ({error}); take another --port"
        ) from error


def listen(app: Starlette, listener: socket.socket, what: str) -> None:
    """Serves until Ctrl-C or SIGTERM, finishing the requests that are under way; prints `what`
    with the address."""
    host, port = listener.getsockname()[:2]
    print(f"{what} http://{host}:{port} (Ctrl-C stops it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listener])
