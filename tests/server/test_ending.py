"""How a node ends under load, for whom it does not wait, and what a SIGHUP does."""

from __future__ import annotations

import contextlib
import http.client
import signal
import threading
import time
from pathlib import Path

import httpx2
import pytest
from support.servers import TOKEN, Eventually, Launcher, Node

GRACE = {"MESH_HTTP_GRACE_S": "1"}


class Caller(threading.Thread):
    """Asks over one kept connection until an answer says that it is the last."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
        self.statuses: list[int] = []
        self.error: Exception | None = None

    def run(self) -> None:
        """Ask until the end."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        try:
            while True:
                self.connection.request("GET", "/mesh/health", headers=headers)
                answer = self.connection.getresponse()
                answer.read()
                self.statuses.append(answer.status)
                if answer.getheader("connection") == "close":
                    return
                time.sleep(0.005)
        except Exception as error:  # noqa: BLE001 - told by the test
            self.error = error
        finally:
            self.connection.close()


@pytest.mark.slow
def test_no_kept_connection_ends_in_a_reset(own_launcher: Launcher, eventually: Eventually) -> None:
    """Each is told with its last answer, and every answer before the leaving is a good one."""
    node = own_launcher.node("loaded", environment=GRACE)
    node.start()
    callers = [Caller(node) for _ in range(32)]
    for caller in callers:
        caller.start()
    eventually(lambda: all(len(caller.statuses) > 3 for caller in callers), "all have asked")

    node.started.terminate()
    for caller in callers:
        caller.join(10)

    assert [] == [caller.error for caller in callers if caller.error is not None]
    assert {200} == {status for caller in callers for status in caller.statuses}
    assert 0 == node.started.wait(10)


def test_a_second_signal_does_not_wait(own_launcher: Launcher, eventually: Eventually) -> None:
    """Neither for the grace period nor for anybody else; that is no good end, and says so."""
    node = own_launcher.node("hurried", environment={"MESH_HTTP_GRACE_S": "600"})
    node.start()
    node.started.terminate()
    eventually(
        lambda: node.client.get("/mesh/health").headers.get("connection") == "close", "it drains"
    )

    node.started.terminate()

    assert 1 == node.started.wait(10)


def test_new_connections_are_answered_in_the_grace_period(
    own_launcher: Launcher, eventually: Eventually
) -> None:
    """Whoever sends traffic learns of the end a little later than the node."""
    node = own_launcher.node("graceful", environment={"MESH_HTTP_GRACE_S": "600"})
    node.start()
    node.request("POST", "/mesh/shutdown", status=202)
    eventually(
        lambda: node.client.get("/mesh/health").headers.get("connection") == "close", "it drains"
    )

    answers = [node.client.get("/mesh/health") for _ in range(5)]
    ready = node.client.get("/readyz")

    assert [(200, "close")] * 5 == [(a.status_code, a.headers["connection"]) for a in answers]
    assert (503, {"error": "leaving", "code": "not_ready"}) == (ready.status_code, ready.json())


def test_a_sighup_rereads_the_tokens(
    own_launcher: Launcher, eventually: Eventually, tmp_path: Path
) -> None:
    """New ones are taken, old ones are not any more; a file that is none changes nothing."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    node = own_launcher.node("rotated", arguments=["--token-file", str(tokens)])
    node.start()

    def status(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return int(node.client.get("/mesh/health", headers=headers).status_code)

    assert (200, 401) == (status(TOKEN), status("another"))
    tokens.write_text("another\n")
    assert 401 == status("another")
    node.started.send_signal(signal.SIGHUP)
    eventually(lambda: status("another") == 200, "the new token is taken")
    assert 401 == status(TOKEN)

    tokens.write_text("# none\n")
    node.started.send_signal(signal.SIGHUP)
    eventually(
        lambda: any("tokens stay" in line["message"] for line in node.log_lines()), "it is told"
    )
    assert 200 == status("another")
    node.started.terminate()
    assert 0 == node.started.wait(10)


@pytest.mark.slow
def test_a_connection_that_has_just_come_is_answered_at_the_end(own_launcher: Launcher) -> None:
    """Its request is on its way while the server closes: 503, and no end without an answer."""
    node = own_launcher.node("late")
    node.start()
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
    connection.connect()
    node.get("/mesh/health")  # the one before it has been taken
    node.started.terminate()
    with contextlib.suppress(httpx2.TransportError):  # it may have closed this one already
        while node.client.get("/readyz").status_code == 200:
            pass

    connection.request("GET", "/mesh/health", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()

    assert (503, "close") == (answer.status, answer.getheader("connection"))
    connection.close()
    assert 0 == node.started.wait(10)
