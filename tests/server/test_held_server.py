"""A server that cannot be held: silence, slowness, size, number, and answers nobody lost."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import resource
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from support.servers import TOKEN, Eventually, Launcher, Node

QUICK = """
mesh:
  http: {head_timeout_s: 0.5, body_timeout_s: 0.5, idle_timeout_s: 0.5}
"""
HEAD = f"Host: a\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def quick(launcher: Launcher) -> Node:
    """Return a node that waits for half a second only."""
    node = launcher.node("quick", config=QUICK)
    node.start()
    return node


@pytest.fixture(scope="module")
def strict(launcher: Launcher) -> Node:
    """Return a node with the defaults."""
    node = launcher.node("strict")
    node.start()
    return node


def connect(node: Node) -> socket.socket:
    """Connect, with a deadline on everything."""
    return socket.create_connection(("127.0.0.1", node.port), timeout=20)


def rest_of(sock: socket.socket) -> bytes:
    """Return what comes until the other side closes; a reset is an error."""
    answer = b""
    while chunk := sock.recv(65_536):
        answer += chunk
    return answer


def only_answer(answer: bytes) -> tuple[int, str]:
    """Return the status and the message of the one error that came."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


def test_a_silent_connection_is_closed(quick: Node) -> None:
    """Without a word: nothing was asked."""
    with connect(quick) as sock:
        assert b"" == rest_of(sock)


def test_an_idle_connection_is_closed_after_its_answer(quick: Node) -> None:
    """So is one that has been of use."""
    with connect(quick) as sock:
        sock.sendall(b"GET /mesh/health HTTP/1.1\r\n" + HEAD + b"\r\n")

        assert rest_of(sock).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("begun", "what"),
    [
        (b"GET /mesh/health HTTP/1.1\r\nHost: a\r\nX-", "headers"),
        (b"POST /mesh/config HTTP/1.1\r\n" + HEAD + b"Content-Length: 9\r\n\r\n{", "body"),
    ],
)
def test_a_slow_request_is_408(quick: Node, begun: bytes, what: str) -> None:
    """Headers as well as bodies; a byte now and then does not help."""
    with connect(quick) as sock:
        sock.sendall(begun)
        sock.settimeout(0.2)
        answer = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(50):
                sock.sendall(b"a")
                with contextlib.suppress(TimeoutError):
                    answer = sock.recv(65_536)
                    break

    assert (408, f"the {what} did not come in time") == only_answer(answer)


@pytest.mark.parametrize(
    "headers",
    [
        b"X-Long: " + b"a" * 70_000 + b"\r\n\r\n",
        b"X-Endless: " + b"a" * (4 * MIB),
        b"".join(b"X-%d: a\r\n" % number for number in range(101)) + b"\r\n",
        b"".join(b"X-%d: %s\r\n" % (number, b"a" * 5_000) for number in range(20)) + b"\r\n",
    ],
    ids=["one that is too long", "one without an end", "too many lines", "too much together"],
)
def test_headers_over_their_limit_are_431(strict: Node, headers: bytes) -> None:
    """Whole or not, and before the application sees them."""
    with connect(strict) as sock:
        sock.sendall(b"GET /mesh/health HTTP/1.1\r\nHost: a\r\n" + headers)
        answer = rest_of(sock)

    assert (431, "the headers are over 65,536 bytes or 100 lines") == only_answer(answer)


def test_headers_at_their_limit_are_served(strict: Node) -> None:
    """A hundred lines, and nearly 64 KiB."""
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 600) for number in range(97))
    with connect(strict) as sock:
        sock.sendall(b"GET /mesh/health HTTP/1.1\r\nConnection: close\r\n" + HEAD + lines + b"\r\n")

        assert rest_of(sock).startswith(b"HTTP/1.1 200")


def test_a_path_without_an_end_is_431(strict: Node) -> None:
    """The request line counts as well."""
    with connect(strict) as sock:
        sock.sendall(b"GET /" + b"a" * 200_000)
        sock.sendall(b"a" * 200_000)

        assert 431 == only_answer(rest_of(sock))[0]


def test_pipelined_requests_before_garbage_are_answered(strict: Node) -> None:
    """All fifty, in their order, and then what was wrong."""
    request = b"GET /mesh/config/none%d HTTP/1.1\r\n" + HEAD + b"\r\n"
    with connect(strict) as sock:
        sock.sendall(b"".join(request % number for number in range(50)) + b"\0GARBAGE\r\n\r\n")
        answers = rest_of(sock).split(b"HTTP/1.1 ")[1:]

    assert [b"404"] * 50 + [b"400"] == [answer[:3] for answer in answers]
    assert [f"none{number}" in answer.decode() for number, answer in enumerate(answers[:50])] == (
        [True] * 50
    )


def test_a_pipelined_body_that_is_no_body_ends_after_those_before_it(strict: Node) -> None:
    """Its handler is not left waiting."""
    good = b"GET /mesh/health HTTP/1.1\r\n" + HEAD + b"\r\n"
    bad = b"POST /mesh/config HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
    for count in (0, 1, 3):
        with connect(strict) as sock:
            sock.sendall(good * count + bad)
            answers = rest_of(sock).split(b"HTTP/1.1 ")[1:]

        assert [b"200"] * count + [b"400"] == [answer[:3] for answer in answers]


def test_connections_beyond_the_cap_cost_the_silent_ones_their_place(
    own_launcher: Launcher,
) -> None:
    """Those who ask are served all the while."""
    node = own_launcher.node("small", config="mesh: {http: {connections_max: 8}}")
    node.start()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(node)) for _ in range(30)]

        assert 200 == node.client.get("/mesh/health").status_code
        for sock in silent[:20]:
            with contextlib.suppress(ConnectionResetError):
                assert b"" == sock.recv(1)


def test_one_address_may_be_capped(own_launcher: Launcher) -> None:
    """When that is set; the node's own client holds one of the three."""
    node = own_launcher.node("capped", config="mesh: {http: {connections_per_address_max: 3}}")
    node.start()
    with connect(node), connect(node) as second, connect(node) as third:
        with contextlib.suppress(ConnectionResetError):
            assert b"" == third.recv(1)
        second.sendall(b"GET /mesh/health HTTP/1.1\r\nConnection: close\r\n" + HEAD + b"\r\n")
        assert rest_of(second).startswith(b"HTTP/1.1 200")


@contextlib.contextmanager
def few_descriptors(count: int) -> Iterator[None]:
    """Let processes that are started meanwhile open so many files only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_more_connections_than_descriptors_leave_a_node_in_its_cluster(
    own_launcher: Launcher, eventually: Eventually
) -> None:
    """It answers, its peer keeps it for Alive, and the log says next to nothing."""
    with few_descriptors(256):
        held, peer = own_launcher.cluster("held", "peer")
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(connect(held))
            if len(held.log_lines()) > 200:
                break
        held.get("/mesh/health")
        held.request("POST", "/mesh/config", {"key": "k", "value": "01"})
        eventually(
            lambda: peer.client.get("/mesh/config/k").status_code == 200, "the write arrives"
        )
        assert {"held": "Alive", "peer": "Alive"} == peer.statuses()
    warnings = [line for line in held.log_of_its_life() if line["level"] in ("warning", "error")]
    assert len(warnings) < 5, warnings


REFUSED = [
    ("POST", "/mesh/config", TOKEN, 413),
    ("POST", "/mesh/config", "wrong", 401),
    ("POST", "/mesh/nothing", TOKEN, 404),
    ("PATCH", "/mesh/policies", TOKEN, 405),
]


@pytest.mark.parametrize("size", [1_153_434, 20 * MIB, 32 * MIB])
@pytest.mark.parametrize(("method", "path", "token", "status"), REFUSED)
def test_a_refusal_reaches_who_still_sends_a_body(
    strict: Node, method: str, path: str, token: str, status: int, size: int
) -> None:
    """`urllib` sends all of it before it reads, and asks for the connection to be closed."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{strict.port}{path}",
        data=b"a" * size,
        method=method,
        headers={"Authorization": f"Bearer {token}"},
    )
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request, timeout=60)

    assert status == refusal.value.status
    assert ["error", "code"] == list(json.loads(refusal.value.read()))
    refusal.value.close()


def sent_by_curl(node: Node, method: str, path: str, token: str, body: Path) -> tuple[int, bytes]:
    """Send a file with curl, and return what it read."""
    command = [
        "curl", "--silent", "--show-error", "--noproxy", "*", "--request", method,
        "--header", f"Authorization: Bearer {token}", "--data-binary", f"@{body}",
        "--write-out", "\\n%{http_code}", f"http://127.0.0.1:{node.port}{path}",
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, timeout=60, check=True)
    answer, _, status = ran.stdout.rpartition(b"\n")
    return int(status), answer


def sent_by_httpx(node: Node, method: str, path: str, token: str, body: Path) -> tuple[int, bytes]:
    """Send a file with httpx, and return what it read."""
    headers = {"Authorization": f"Bearer {token}"}
    url = f"http://127.0.0.1:{node.port}{path}"
    with httpx2.Client(trust_env=False, verify=False, timeout=60) as client:
        answer = client.request(method, url, content=body.read_bytes(), headers=headers)
        return answer.status_code, answer.content


@pytest.mark.slow
@pytest.mark.parametrize("size", [1_153_434, 20 * MIB, 32 * MIB])
@pytest.mark.parametrize("send", [sent_by_curl, sent_by_httpx])
@pytest.mark.parametrize(("method", "path", "token", "status"), REFUSED)
def test_a_refusal_reaches_other_clients_too(
    strict: Node,
    tmp_path: Path,
    send: Callable[[Node, str, str, str, Path], tuple[int, bytes]],
    method: str,
    path: str,
    token: str,
    status: int,
    size: int,
) -> None:
    """`curl` asks first whether it may send, and `httpx` sends all of it."""
    body = tmp_path / "body"
    body.write_bytes(b"a" * size)

    answered, content = send(strict, method, path, token, body)

    assert status == answered
    assert "error" in json.loads(content)


@pytest.mark.parametrize(("method", "path", "token", "status"), REFUSED)
def test_a_refusal_reaches_who_sends_a_body_in_chunks(
    strict: Node, method: str, path: str, token: str, status: int
) -> None:
    """Over a connection that was to be kept, too."""
    connection = http.client.HTTPConnection("127.0.0.1", strict.port, timeout=60)
    with contextlib.closing(connection):
        connection.request(
            method,
            path,
            body=(b"a" * 65_536 for _ in range(320)),
            headers={"Authorization": f"Bearer {token}"},
            encode_chunked=True,
        )
        answer = connection.getresponse()

        assert status == answer.status
        assert ["error", "code"] == list(json.loads(answer.read()))


def test_a_refused_body_of_moderate_size_does_not_end_a_connection(strict: Node) -> None:
    """It is read past, and the next request is answered."""
    connection = http.client.HTTPConnection("127.0.0.1", strict.port, timeout=20)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with contextlib.closing(connection):
        connection.request("POST", "/mesh/nothing", b"a" * MIB, headers)
        refused = connection.getresponse()
        refused.read()
        sock = connection.sock
        connection.request("GET", "/mesh/health", headers=headers)
        answer = connection.getresponse()

        assert (404, 200) == (refused.status, answer.status)
        assert sock is connection.sock


def test_a_body_without_an_end_is_not_read_for_ever(strict: Node) -> None:
    """Refused or not, whoever goes on sending is cut off in the end."""
    with connect(strict) as sock:
        sock.sendall(
            b"POST /mesh/nothing HTTP/1.1\r\n" + HEAD + b"Content-Length: 999999999\r\n\r\n"
        )
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 200 * MIB:
                sent += sock.send(b"a" * MIB)

    assert sent < 64 * MIB
    strict.get("/mesh/health")


def test_refused_upgrades_are_no_errors(own_launcher: Launcher) -> None:
    """A stranger's WebSocket is a 401 and at most one line."""
    node = own_launcher.node("knocked")
    node.start()
    upgrade = (
        b"GET /mesh/gossip HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    for _ in range(20):
        with connect(node) as sock:
            sock.sendall(upgrade)
            assert rest_of(sock).startswith(b"HTTP/1.1 401")

    lines = [line for line in node.log_of_its_life() if line["level"] in ("warning", "error")]
    assert [] == [line for line in lines if line["level"] == "error"]
    assert 1 == len([line for line in lines if "unauthenticated" in line["message"]])


@pytest.mark.slow
def test_a_pipe_that_nobody_reads_stops_no_node(own_launcher: Launcher) -> None:
    """Standard error is full before the node says its first word."""
    node = own_launcher.node("unheard")
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b"x" * 512):
            pass
    os.set_blocking(writing, True)
    node.process = subprocess.Popen(
        [sys.executable, "-m", "meshlib_server", "serve", *node.arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=writing,
        env=node.environment,
    )
    os.close(writing)
    try:
        node.log = Path(os.devnull)
        node.await_answer()
        assert 200 == node.client.get("/mesh/health").status_code
        node.started.terminate()
        assert 0 == node.started.wait(10)
    finally:
        os.close(reading)
