"""Notices that another process of a run is gone or hangs, whatever this one waits for.

A collective fails at its next exchange, but a barrier, such as Orbax waits at, only by JAX's
heartbeats. So each process holds a connection to process 0, which the system closes the moment
that either ends, and says goodbye through it before it leaves as it should.

The connection of a process that hangs (stopped by SIGSTOP, or on a host without power) stays
open. So each end sends a beat now and then, and too long a silence counts as the end.
"""

import contextlib
import json
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from hyperrec_jax.errors import Preempted
from hyperrec_jax.parallel import processes

logger = logging.getLogger(__name__)

_GOODBYE, _BEAT = b"\0", b"\1"
_BEATS = 4
"""Beats that must fail to come, one after the other, before a process counts as hanging."""
_TOKEN_BYTES = 16
_CONNECT_SECONDS = 60


@contextlib.contextmanager
def watched(host: str | None, lost: Callable[[str], None], silence: float = 60.0) -> Iterator[None]:
    """Watches over the other processes from here on, and parts from them at the block's end.

    Where process 0 can't be reached by a port of its choice, the heartbeats alone remain.

    Args:
      host: Where process 0 is reached; None takes its own name for itself.
      lost: Called in a thread, with the reason, once another process ends without a goodbye or is
        silent for too long. This one gives no goodbye where the block ends by an error.
      silence: Seconds without a sign of life after which a process counts as hanging.
    """
    peers = _Peers(lost, silence)
    peers.connect(host)
    try:
        yield
    except Preempted:  # all are, at one step
        peers.say_goodbye()
        raise
    finally:
        peers.stop_beating()
    peers.say_goodbye()


class _Peers:
    """The connections of this process: to process 0, or from all others."""

    def __init__(self, lost: Callable[[str], None], silence: float) -> None:
        self._lost = lost
        self._silence = silence
        self._connections: list[socket.socket] = []
        self._parted = threading.Event()

    def connect(self, host: str | None) -> None:
        invitation = b""
        if processes.is_first():
            ipv6 = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if ipv6 else socket.AF_INET
            listener = socket.create_server(("", 0), family=family, dualstack_ipv6=ipv6)
            token = secrets.token_bytes(_TOKEN_BYTES)
            port = listener.getsockname()[1]
            invitation = json.dumps([socket.gethostname(), port, token.hex()]).encode()
            _in_background(self._accept, listener, token)
        name, port, token = json.loads(processes.from_first(invitation))
        if not processes.is_first():
            _in_background(self._call, (host or name, port), bytes.fromhex(token))
        _in_background(self._beat)

    def stop_beating(self) -> None:
        self._parted.set()

    def say_goodbye(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):  # it left before
                connection.sendall(_GOODBYE)

    def _accept(self, listener: socket.socket, token: bytes) -> None:
        while True:
            connection, _ = listener.accept()
            _in_background(self._greet, connection, token)

    def _greet(self, connection: socket.socket, token: bytes) -> None:
        """Watches over a caller, if it is one of ours."""
        with contextlib.suppress(OSError):
            if connection.recv(_TOKEN_BYTES, socket.MSG_WAITALL) == token:
                self._watch(connection)
                return
        connection.close()

    def _call(self, address: tuple[str, int], token: bytes) -> None:
        try:
            connection = socket.create_connection(address, timeout=_CONNECT_SECONDS)
            connection.settimeout(None)
            connection.sendall(token)
        except OSError as error:
            logger.info("process 0 can't be watched at %s:%d (%s)", *address, error)
            return
        self._watch(connection)

    def _beat(self) -> None:
        while not self._parted.wait(self._silence / _BEATS):
            for connection in list(self._connections):
                with contextlib.suppress(OSError):  # whoever reads from it learns that it ended
                    connection.sendall(_BEAT)

    def _watch(self, connection: socket.socket) -> None:
        connection.settimeout(self._silence / _BEATS)
        self._connections.append(connection)
        missed = 0
        # Beats are counted, not seconds: while this process itself is stopped, it misses one.
        while missed < _BEATS:
            try:
                word = connection.recv(1)
            except TimeoutError:
                missed += 1
                continue
            except OSError:
                word = b""
            if word == _GOODBYE:
                return
            if word != _BEAT:
                self._lost("its connection ended")
                return
            missed = 0
        self._lost(f"it gave no sign of life for {self._silence:g} s: stopped, or its host hangs")


def _in_background(work: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()
