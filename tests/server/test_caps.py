"""What one address may ask in a second, and have under way."""

from __future__ import annotations

from typing import Any

import anyio
import httpx2
import pytest
from support.servers import Launcher

from meshlib.errors import ConfigError
from meshlib_server.access.caps import ADDRESSES_MAX, CapsByAddress, Rates, address_of
from meshlib_server.client import ApiError, MeshClient
from meshlib_server.http.gate import HttpSettings
from meshlib_server.problems import ContentTooLarge, TooManyRequests


class Clock:
    """Seconds that move by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def admitted(rates: Rates, count: int, address: str = "a") -> int:
    return sum(rates.wait_s(address) == 0 for _ in range(count))


def test_a_second_s_worth_may_come_at_once() -> None:
    """And then one for each that has had its time."""
    clock = Clock()
    rates = Rates(5, clock=clock)

    assert 5 == admitted(rates, 20)
    clock.now += 0.2
    assert 1 == admitted(rates, 20)
    clock.now += 60
    assert 5 == admitted(rates, 20)


def test_the_rate_holds_over_a_long_time() -> None:
    """Whoever asks all the time is admitted as often as was set."""
    clock, count = Clock(), 0
    rates = Rates(2.5, clock=clock)
    for _ in range(1000):
        count += admitted(rates, 1)
        clock.now += 0.01

    assert 25 <= count <= 28


def test_less_than_one_in_a_second_is_one_now_and_then() -> None:
    """The wait is told."""
    clock = Clock()
    rates = Rates(0.1, clock=clock)

    assert 1 == admitted(rates, 3)
    assert 10 == pytest.approx(rates.wait_s("a"))
    clock.now += 10
    assert 1 == admitted(rates, 3)


def test_addresses_do_not_share() -> None:
    """What one has used up another has."""
    rates = Rates(1, clock=Clock())

    assert (1, 1) == (admitted(rates, 9, "a"), admitted(rates, 9, "b"))


def test_so_many_addresses_are_kept() -> None:
    """However many ask."""
    rates = Rates(1, clock=Clock())
    for number in range(ADDRESSES_MAX + 100):
        rates.wait_s(str(number))

    assert ADDRESSES_MAX == len(rates)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("a-socket", "a-socket"),
    ],
)
def test_a_network_is_one_address(host: str, address: str) -> None:
    """Whoever has one address of IPv6 has all of its network."""
    assert address == address_of(host)


async def read_all(_scope: Any, receive: Any, _send: Any) -> None:
    while (await receive()).get("more_body"):
        pass


def sent(caps: CapsByAddress, parts: list[bytes], host: str = "10.0.0.1") -> None:
    """Send a body in parts."""
    left = list(parts)

    async def receive() -> Any:
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    async def send(_message: Any) -> None:
        return

    scope = {"type": "http", "path": "/mesh/workers", "client": (host, 1)}
    anyio.run(caps, scope, receive, send)


def test_a_body_over_the_cap_of_an_address_is_too_large() -> None:
    """However it comes; the next one is counted from nothing."""
    caps = CapsByAddress(read_all, rate=0, body_bytes_max=10)
    with pytest.raises(ContentTooLarge):
        sent(caps, [b"x" * 6, b"x" * 5])
    sent(caps, [b"x" * 6, b"x" * 4])

    assert {} == caps._bodies.under_way


def test_bodies_of_one_address_are_counted_together() -> None:
    """While they are under way; those of another are not among them."""

    async def meanwhile(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()
        inner = CapsByAddress(read_all, rate=0, body_bytes_max=10)
        inner._bodies = caps._bodies
        await ask(inner, "10.0.0.2")
        with pytest.raises(TooManyRequests):
            await ask(inner, "10.0.0.1")

    async def ask(which: Any, host: str) -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b"x" * 6}

        async def send(_message: Any) -> None:
            return

        scope = {"type": "http", "path": "/mesh/workers", "client": (host, 1)}
        await which(scope, receive, send)

    caps = CapsByAddress(meanwhile, rate=0, body_bytes_max=10)
    anyio.run(ask, caps, "10.0.0.1")

    assert {} == caps._bodies.under_way


@pytest.mark.parametrize(
    "settings", [{"requests_per_second_per_address": -1}, {"body_bytes_per_address_max": -1}]
)
def test_a_cap_below_nothing_is_refused(settings: dict[str, Any]) -> None:
    """As every setting out of its range."""
    with pytest.raises(ConfigError):
        HttpSettings(**settings)


def test_a_server_with_caps_answers_429(own_launcher: Launcher) -> None:
    """With a word for programs and the time to wait; probes are answered all the same."""
    node = own_launcher.node(
        "capped", config="mesh: {http: {requests_per_second_per_address: 0.001}}"
    )
    node.start()
    refused = node.client.get("/mesh/health")
    wrong_token = httpx2.get(f"http://{node.address}/mesh/health")
    probes = {node.client.get("/livez").status_code for _ in range(5)}
    client = MeshClient(node.address, token="operator-token-1")
    with client, pytest.raises(ApiError) as caught:
        client.acquire()

    assert (429, "too_many_requests") == (refused.status_code, refused.json()["code"])
    assert 429 == wrong_token.status_code
    assert 500 < int(refused.headers["retry-after"]) <= 1000
    assert {200} == probes
    assert "too_many_requests" == caught.value.code
