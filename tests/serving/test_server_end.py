"""How the server ends: no request lost, and no end that never comes."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from hyperrec_jax.commands import serve
from hyperrec_jax.errors import UserError
from tests.conftest import ROOT
from tests.serving.test_server import BODY, read_answer

pytestmark = pytest.mark.slow

SCRIPT = ["-m", "tests.serving.run_slow_server"]
REQUEST = b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n"


@contextlib.contextmanager
def serving(seconds, drain, graceful):
    """A server that listens, and its address."""
    command = [sys.executable, *SCRIPT, *map(str, (seconds, drain, graceful))]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            url = server.stdout.readline().split()[1]
            with urllib.request.urlopen(f"{url}/healthz", timeout=60) as answer:
                assert json.load(answer)["status"] == "ok"
            yield server, ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        finally:
            server.kill()


def send(address, content):
    connection = socket.create_connection(address, timeout=30)
    connection.sendall(content)
    return connection


def test_every_request_that_the_kernel_took_is_answered():
    """The server is stopped for a moment, so that 60 requests wait in the kernel when SIGTERM
    comes: before there was a drain period, 58 of them were reset."""
    with serving(0.01, 0, 20) as (server, address):
        server.send_signal(signal.SIGSTOP)
        connections = [send(address, REQUEST % len(BODY) + BODY) for _ in range(60)]
        server.send_signal(signal.SIGTERM)
        server.send_signal(signal.SIGCONT)
        for connection in connections:
            with connection:
                head, _ = read_answer(connection)
                assert " 200 " in head
        messages = server.communicate(timeout=30)[1]
        assert (server.returncode, messages) == (0, "")


def test_a_burst_with_sigterm_in_its_middle_loses_nothing():
    """Connections that are kept, each with one request after another, until the server says that
    it closes them; each request that was sent is answered."""
    with serving(0.02, 1, 20) as (server, address):
        connections = [send(address, REQUEST % len(BODY) + BODY) for _ in range(30)]
        answered, signalled = 0, False
        while connections:
            kept = []
            for connection in connections:
                head, _ = read_answer(connection)
                assert " 200 " in head
                answered += 1
                if "connection: close" in head:
                    connection.close()
                else:
                    connection.sendall(REQUEST % len(BODY) + BODY)
                    kept.append(connection)
            connections = kept
            if not signalled and answered >= 60:
                signalled = True
                server.send_signal(signal.SIGTERM)
                late = [send(address, REQUEST % len(BODY) + BODY) for _ in range(10)]
                connections += late
        assert answered >= 70
        messages = server.communicate(timeout=30)[1]
        assert (server.returncode, messages) == (0, "")


def test_a_stalled_upload_ends_with_the_graceful_limit():
    with serving(0, 0, 1) as (server, address):
        with send(address, REQUEST % 1000 + b"{") as stalled:
            time.sleep(0.2)
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            head, body = read_answer(stalled)
            assert " 503 " in head
            assert "the server is stopping" in body
            messages = server.communicate(timeout=30)[1]
        assert 1 <= time.monotonic() - began < 10
        assert server.returncode == 0
        (message,) = messages.splitlines()
        assert message.endswith("Cancel 1 running task(s), timeout graceful shutdown exceeded")


def test_health_says_that_the_server_stops_and_a_second_signal_ends_it_at_once():
    with serving(0, 600, 600) as (server, address), send(address, REQUEST % 1000 + b"{"):
        server.send_signal(signal.SIGTERM)
        statuses = []
        while "503" not in statuses:
            with send(address, b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n") as connection:
                head, body = read_answer(connection)
            statuses.append(head.split()[1])
        assert json.loads(body)["status"] == "stopping"
        assert "connection: close" in head
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == -signal.SIGTERM


def test_a_model_that_hangs_does_not_keep_the_process():
    with serving(10_000, 0, 1) as (server, address):
        with send(address, REQUEST % len(BODY) + BODY) as waiting:
            time.sleep(0.2)
            server.send_signal(signal.SIGTERM)
            assert " 503 " in read_answer(waiting)[0]
            messages = server.communicate(timeout=30)[1]
        assert server.returncode == 1
        assert messages.splitlines()[-1] == "not stopped 4 seconds after the signal: ended"


def test_the_command_takes_its_options(exported_model):
    """`--host ::1`, and a stalled upload of the real command."""
    command = [sys.executable, "-m", "hyperrec_jax", "serve", "--model", exported_model]
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    options = "--host ::1 --port 0 --drain-seconds 0 --graceful-seconds 1 --body-seconds 0.5"
    with subprocess.Popen(
        [*command, *options.split()], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as server:
        try:
            url = server.stdout.readline().split()[-4]
            assert url.startswith("http://[::1]:")
            with urllib.request.urlopen(f"{url}/healthz", timeout=120) as answer:
                assert json.load(answer)["status"] == "ok"
            port = int(url.rsplit(":", 1)[1])
            with send(("::1", port), REQUEST % 1000 + b"{") as stalled:
                assert " 408 " in read_answer(stalled)[0]
            with send(("::1", port), REQUEST % 1000 + b"{"):
                server.send_signal(signal.SIGTERM)
                assert server.wait(30) == 0
        finally:
            server.kill()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--max-rows", "0"),
        ("--max-in-flight", "0"),
        ("--body-seconds", "0"),
        ("--body-mib", "1"),
        ("--drain-seconds", "-1"),
        ("--graceful-seconds", "0"),
    ],
)
def test_a_bad_option_is_refused_before_the_model_is_read(option, value, tmp_path):
    with pytest.raises(UserError, match=f"{option} {value}: give "):
        serve.main(["--model", str(tmp_path), option, value])
