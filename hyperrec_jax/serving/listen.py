"""Runs an ASGI application on a socket that is known to be free, and ends it without a loss."""

import asyncio
import os
import select
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from hyperrec_jax.errors import UserError
from hyperrec_jax.serving.limits import Limits

_ROUNDS, _ROUND_SECONDS = 20, 0.01
"""How often the event loop looks for requests on the connections that it accepted last. By rounds
and not by time alone, since a busy machine may need long for one."""
_LAST_SECONDS = 3.0
"""Beyond the graceful limit, for the answers to those who were cut off; then the process ends."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Args:
      host: A name or an address, of IPv4 or IPv6. A name that has both gets IPv4.
      port: 0 to 65535.

    Raises:
      UserError: the address can't be listened on.
    """
    if not host:
        raise UserError("--host is empty; give 127.0.0.1, or 0.0.0.0 for every address of this one")
    if not 0 <= port < 1 << 16:
        raise UserError(f"--port {port}: give 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        return socket.create_server(address, family=family)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"{host}, port {port}: can't be listened on ({error}); take another --host or --port"
        ) from error


def listen(app: Starlette, listener: socket.socket, what: str, limits: Limits) -> None:
    """Serves until Ctrl-C or SIGTERM, as `Server` does; prints `what` with the address."""
    host, port = listener.getsockname()[:2]
    host = f"[{host}]" if listener.family == socket.AF_INET6 else host
    print(f"{what} http://{host}:{port} (Ctrl-C stops it)", flush=True)
    Server(app, limits).run([listener])


class Server(uvicorn.Server):
    """A server whose end loses no request that reached this machine.

    After the first SIGTERM or Ctrl-C it goes on for a drain period, in which whoever balances load
    can notice: `app.state.stopping` is true, and each answer closes its connection. Then no
    connection is accepted any more, and what is under way has the graceful limit to finish. A
    second signal ends the process at once.
    """

    def __init__(self, app: Starlette, limits: Limits, log_level: str = "warning") -> None:
        """A server of an application.

        Args:
          app: The application.
          limits: How it ends; the other limits are the application's.
          log_level: Level of uvicorn's messages.
        """
        # uvicorn's own limit_concurrency is not used: it would turn away /healthz as well.
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                log_level=log_level,
                timeout_graceful_shutdown=limits.graceful_seconds,
            )
        )
        self._app = app
        self._limits = limits
        self._last_resort: threading.Timer | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            super().run(sockets)
        finally:
            if self._last_resort is not None:
                self._last_resort.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins the end; for a second signal, ends at once, as a program without a handler."""
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
            return
        self.should_exit = True
        # Also where a thread hangs in the model: Python would wait for it.
        limit = self._limits.drain_seconds + self._limits.graceful_seconds + _LAST_SECONDS
        self._last_resort = threading.Timer(limit, _end, (limit,))
        self._last_resort.daemon = True
        self._last_resort.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains, then finishes what is under way."""
        self._app.state.stopping = True
        self.server_state.default_headers = [
            *self.server_state.default_headers,
            (b"connection", b"close"),
        ]
        await asyncio.sleep(self._limits.drain_seconds)
        # uvloop accepts one connection in each round of its loop: until none waits. More may come
        # all the time, so not for ever.
        until = time.monotonic() + self._limits.graceful_seconds
        while _any_waits(sockets or []) and time.monotonic() < until:
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        # A connection that was accepted just now may have a request that is not read yet.
        for _ in range(_ROUNDS):
            await asyncio.sleep(_ROUND_SECONDS)
        await super().shutdown(sockets)


def _any_waits(listeners: list[socket.socket]) -> bool:
    """Whether a connection waits to be accepted."""
    poll = select.poll()
    for listener in listeners:
        poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Tells the application when a request arrived, as `request.state.arrived`: what it waits for
    the event loop after that is a part of its latency."""

    app_state: dict[str, Any]

    def data_received(self, data: bytes) -> None:
        self.app_state = {**self.app_state, "arrived": time.perf_counter()}
        super().data_received(data)


def _end(seconds: float) -> None:
    print(f"not stopped {seconds:g} seconds after the signal: ended", file=sys.stderr, flush=True)
    os._exit(1)
