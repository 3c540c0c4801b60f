"""The application in this process, around a node that does as the test says."""

from __future__ import annotations

from typing import Any

import anyio
import httpx2
import pytest
from attrs import define, field

from meshlib.errors import DecodeError, LimitError, StateError, UnknownKeyError
from meshlib.ratelimit import Decision
from meshlib_server.app import build_app
from meshlib_server.auth import Secrets, TokenSet
from meshlib_server.service import Service

OPEN = Secrets(operators=TokenSet([]), peers=TokenSet([]), peer_token=None)


@define
class FakeSync:
    """Counts nothing and fails as told."""

    failure: Exception | None = None
    workers: list[str] = field(factory=list)
    policies: list[str] = field(factory=list)
    app: list[str] = field(factory=list)

    def _fail(self, *_: Any, **__: Any) -> None:
        if self.failure is not None:
            raise self.failure

    set_global_rate_limit = _fail
    get_global_rate_limit = _fail
    get_all_worker_states = _fail


@define
class FakeMember:
    """A member as the status shows it."""

    name: str
    address: str = "127.0.0.1:1"
    status: str = "Alive"
    version: int = 1


class FakeStartup:
    """The rule of a node that is ready: what is not there is not there."""

    def check_absence(self, _what: str) -> None:
        """Let it be said."""


@define
class FakeNode:
    """A node with members and stores of the test's choice."""

    name: str = "a"
    members_revision: int = 1
    sync: FakeSync = field(factory=FakeSync)
    startup: FakeStartup = field(factory=FakeStartup)
    listed: list[FakeMember] = field(factory=lambda: [FakeMember("a")])
    members_calls: int = 0
    retry_after_s: float = 1.0

    @property
    def node(self) -> FakeNode:
        """The node behind the running one: here the same."""
        return self

    async def acquire_confirmed(self, _key: str, **_: Any) -> Decision:
        """Refuse, and say when to come back as told."""
        return Decision(allowed=False, limit=1, remaining=0, retry_after_s=self.retry_after_s)

    def members(self) -> list[FakeMember]:
        """Count how often the members are asked for."""
        self.members_calls += 1
        return self.listed


def ask(service: Service, *calls: tuple[str, str, Any]) -> list[httpx2.Response]:
    """Make requests in this process."""

    async def run() -> list[httpx2.Response]:
        app = build_app(service, secrets=OPEN)
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [await client.request(method, path, json=body) for method, path, body in calls]

    return anyio.run(run)


def service(node: FakeNode, calls: list[str] | None = None) -> Service:
    """Make a service around a fake node."""
    made: list[str] = [] if calls is None else calls
    fake: Any = node
    return Service(fake, shut_down=lambda: made.append("shut down"))


@pytest.mark.parametrize(
    ("failure", "status", "message", "code"),
    [
        (RuntimeError("the secret of the house"), 500, "internal server error", "internal_error"),
        (DecodeError("it is unreadable"), 500, "it is unreadable", "unreadable_state"),
        (UnknownKeyError("worker", "w"), 404, "no worker 'w'", "not_found"),
        (
            LimitError("key bytes", size=2, limit=1),
            400, "key bytes: 2 is over the limit of 1", "invalid_request",
        ),
        (StateError("the node has left"), 503, "the node has left", "leaving"),
    ],
)  # fmt: skip
def test_each_kind_of_failure_has_its_status_and_its_code(
    failure: Exception, status: int, message: str, code: str
) -> None:
    """What went wrong inside is not told to anyone outside."""
    node = FakeNode(sync=FakeSync(failure=failure))

    [answer] = ask(service(node), ("GET", "/mesh/workers", None))

    assert (status, {"error": message, "code": code}) == (answer.status_code, answer.json())


def test_a_limit_that_cannot_be_serialised_is_500() -> None:
    """As documented, though no limit that passes the checks is known to do it."""
    node = FakeNode(sync=FakeSync(failure=RuntimeError("cannot serialise")))

    [answer] = ask(service(node), ("POST", "/mesh/rate-limit", {"limit_per_second": 1}))

    assert (500, ["error", "code"]) == (answer.status_code, list(answer.json()))


@pytest.mark.parametrize(
    ("retry_after_s", "header"), [(0.0, "1"), (0.001, "1"), (1.0, "1"), (1.001, "2")]
)
def test_retry_after_is_whole_seconds_and_never_at_once(retry_after_s: float, header: str) -> None:
    """Rounded up: who comes back at the time that is named is not too early."""
    node = FakeNode(retry_after_s=retry_after_s)

    [answer] = ask(service(node), ("POST", "/mesh/rate-limit/acquire", {"key": "global"}))

    assert (429, header) == (answer.status_code, answer.headers["retry-after"])


def test_shutting_down_is_begun_once_and_the_rest_is_answered_until_the_node_leaves() -> None:
    """Shutdown itself stays an acceptable wish to the end."""
    calls: list[str] = []
    its_service = service(FakeNode(), calls)
    requests = [("POST", "/mesh/shutdown", None)] * 2 + [("GET", "/mesh/status", None)]

    while_it_drains = ask(its_service, *requests)
    its_service.is_leaving = True
    while_it_leaves = ask(its_service, *requests)

    assert [202, 202, 200] == [answer.status_code for answer in while_it_drains]
    assert [202, 202, 503] == [answer.status_code for answer in while_it_leaves]
    assert ["shut down"] == calls


def test_the_status_is_made_again_only_when_it_changes() -> None:
    """It is asked for all the time."""
    node = FakeNode()
    its_service = service(node)

    ask(its_service, *[("GET", "/mesh/status", None)] * 5)
    assert 1 == node.members_calls

    node.listed.append(FakeMember("b"))
    node.members_revision += 1
    [answer] = ask(its_service, ("GET", "/mesh/status", None))
    assert 2 == answer.json()["node_count"]

    node.sync.workers += ["w"] * 7
    [answer] = ask(its_service, ("GET", "/mesh/status", None))
    assert 7 == answer.json()["stores"]["worker_count"]
