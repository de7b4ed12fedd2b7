"""What counts as the loss of a process, seen from process 0; sockets stand for the others."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from hyperrec_jax.errors import Preempted
from hyperrec_jax.parallel import liveness, processes
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

SECONDS = 10
BEAT = b"\1"


class Lost(threading.Event):
    """Set, with the reason, once a process is lost."""

    def __init__(self):
        super().__init__()
        self.reasons = []

    def __call__(self, reason):
        self.reasons.append(reason)
        self.set()


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
    lost = Lost()
    with liveness.watched(None, lost):
        caller = call()
        caller.sendall(last_word)
        caller.close()
        assert lost.wait(SECONDS)
    assert lost.reasons == ["its connection ended"]


def test_a_process_that_hangs_is_lost_after_the_silence(call):
    lost = Lost()
    with liveness.watched(None, lost, silence=0.4):
        began = time.monotonic()
        hanging = call()
        assert lost.wait(SECONDS)
        assert time.monotonic() - began >= 0.4
        assert hanging.recv(1) == BEAT  # this one gave signs of life meanwhile
    assert lost.reasons == ["it gave no sign of life for 0.4 s: stopped, or its host hangs"]


def test_a_process_that_beats_is_not_lost(call):
    lost = Lost()
    with liveness.watched(None, lost, silence=2):
        beating, late = call(), call()
        late.sendall(BEAT * 3)
        for _ in range(10):
            beating.sendall(BEAT)
            assert not lost.is_set()
            time.sleep(0.05)
        # The silence begins anew with each beat, and ends with the goodbye.
        beating.sendall(b"\0")
        late.sendall(b"\0")
        assert not lost.wait(3)


# The parent is the process that watches; its child beats, and is stopped as a debugger does it.
STOPPED = """
import os, signal, sys, threading, time
from hyperrec_jax.parallel import liveness, processes
number = int(sys.argv[1])
processes.is_first = lambda: number == 0
processes.from_first = lambda said: print(said.decode(), flush=True) or said if said else (
    sys.stdin.readline().encode())
def lost(reason):
    print(reason, flush=True)
    os._exit(3)
with liveness.watched("127.0.0.1", lost, silence=2):
    time.sleep(120)
"""


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_stopped_by_a_signal_is_noticed_by_the_other(victim):
    with contextlib.ExitStack() as stack:
        pair = [stack.enter_context(_python(STOPPED, number)) for number in range(2)]
        try:
            pair[1].stdin.write(pair[0].stdout.readline())
            pair[1].stdin.flush()
            time.sleep(3)  # longer than the silence: both beat
            assert [process.poll() for process in pair] == [None, None]
            pair[victim].send_signal(signal.SIGSTOP)
            assert pair[1 - victim].wait(60) == 3
            assert "no sign of life for 2 s" in pair[1 - victim].stdout.read()
            assert pair[victim].poll() is None
        finally:
            for process in pair:
                process.kill()


def _python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("error", [None, Preempted])
def test_processes_part_with_a_goodbye(call, error):
    lost = Lost()
    with contextlib.suppress(Preempted), liveness.watched(None, lost):
        late, early = call(), call()
        early.sendall(b"\0")
        early.close()
        _until_threads_wait()
        if error:
            raise error
    assert late.recv(1) == b"\0"
    assert not lost.is_set()


def test_no_goodbye_after_an_error(call):
    with contextlib.suppress(ValueError), liveness.watched(None, lambda reason: None):
        caller = call()
        _until_threads_wait()
        raise ValueError
    caller.settimeout(0.2)
    with pytest.raises(TimeoutError):
        caller.recv(1)


def test_strangers_are_not_waited_for(call):
    lost = Lost()
    with liveness.watched(None, lost):
        stranger = call(b"GET / HTTP/1.1\r\n")
        assert stranger.recv(1) == b""  # closed
        call()
        _until_threads_wait()
        assert not lost.is_set()


def _until_threads_wait():
    """Process 0 takes calls in threads of its own, within moments."""
    time.sleep(0.2)
