"""What counts as the loss of a process, seen from process 0; sockets stand for the others."""

import contextlib
import json
import socket
import threading
import time

import pytest

from hyperrec_jax.errors import Preempted
from hyperrec_jax.parallel import liveness, processes

SECONDS = 10


@pytest.fixture
def invitations(monkeypatch):
    """What process 0 has told the others."""
    told = []

    def from_first(message):
        told.append(json.loads(message))
        return message

    monkeypatch.setattr(processes, "from_first", from_first)
    return told


@pytest.fixture
def call(invitations):
    """Opens a connection as another process does; all are closed at the end."""
    with contextlib.ExitStack() as connections:

        def connect(token=None):
            _, port, own = invitations[0]
            caller = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
            connections.enter_context(caller)
            caller.sendall(token or bytes.fromhex(own))
            return caller

        yield connect


@pytest.mark.parametrize("last_word", [b"", b"x"])
def test_a_process_that_ends_without_a_goodbye_is_lost(call, last_word):
    lost = threading.Event()
    with liveness.watched(None, lost.set):
        caller = call()
        caller.sendall(last_word)
        caller.close()
        assert lost.wait(SECONDS)


@pytest.mark.parametrize("error", [None, Preempted])
def test_processes_part_with_a_goodbye(call, error):
    lost = threading.Event()
    with contextlib.suppress(Preempted), liveness.watched(None, lost.set):
        late, early = call(), call()
        early.sendall(b"\0")
        early.close()
        _until_threads_wait()
        if error:
            raise error
    assert late.recv(1) == b"\0"
    assert not lost.is_set()


def test_no_goodbye_after_an_error(call):
    with contextlib.suppress(ValueError), liveness.watched(None, lambda: None):
        caller = call()
        _until_threads_wait()
        raise ValueError
    caller.settimeout(0.2)
    with pytest.raises(TimeoutError):
        caller.recv(1)


def test_strangers_are_not_waited_for(call):
    lost = threading.Event()
    with liveness.watched(None, lost.set):
        stranger = call(b"GET / HTTP/1.1\r\n")
        assert stranger.recv(1) == b""  # closed
        call()
        _until_threads_wait()
        assert not lost.is_set()


def _until_threads_wait():
    """Process 0 takes calls in threads of its own, within moments."""
    time.sleep(0.2)
