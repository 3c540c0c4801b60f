"""What requests have decoded so far: told by who knows it, summed up by all."""

from __future__ import annotations

from typing import Any

import pytest
from support.load_routers import Routers

from meshlib.errors import LocalError
from meshlib.routing import DEFAULT_SPEED


@pytest.fixture
def routers() -> Routers:
    return Routers("a", "b", "c")


def decoded(routers: Routers, worker_id: str = "w1") -> list[int]:
    return [load.decoded_tokens(worker_id) for load in routers.loads.values()]


def test_what_is_decoded_is_known_to_all_within_two_seconds(routers: Routers) -> None:
    """The sum of what each router was told of its own requests."""
    first, second = routers.loads["a"], routers.loads["b"]
    one, another = first.begin("w1", now=0.0), second.begin("w1", now=0.0)
    first.begin("w1", now=0.0)  # of which nobody says anything
    routers.run(0.1)
    first.renew(one, decoded_tokens=100, now=routers.now)
    second.renew(another, decoded_tokens=20, now=routers.now)
    routers.run(2.1)

    assert [120] * 3 == decoded(routers)
    assert [0] * 3 == decoded(routers, "w2")


def test_it_goes_with_the_request(routers: Routers) -> None:
    """When that ends, and when its worker starts afresh."""
    load = routers.loads["a"]
    for tokens, worker_id in ((5, "w1"), (7, "w1"), (9, "w2")):
        request_id = load.begin(worker_id, now=routers.now)
        load.renew(request_id, decoded_tokens=tokens, now=routers.now)
    load.end(request_id, now=routers.now)
    routers.run(0.1)
    before = decoded(routers), decoded(routers, "w2")
    for each in routers.loads.values():
        each.clear("w1", epoch=1, now=routers.now)

    assert (([12] * 3, [0] * 3), [0] * 3) == (before, decoded(routers))


def test_it_goes_with_the_router(routers: Routers) -> None:
    """That was killed."""
    request_id = routers.loads["a"].begin("w1", now=0.0)
    routers.loads["a"].renew(request_id, decoded_tokens=5, now=0.0)
    routers.run(0.1)
    before = decoded(routers)
    routers.kill("a")

    assert ([5] * 3, [0] * 2) == (before, decoded(routers))


def test_fewer_than_before_change_nothing(routers: Routers) -> None:
    """Two words of a request may come in either order, or twice."""
    load = routers.loads["a"]
    request_id = load.begin("w1", now=0.0)
    for tokens in (50, 80, 80, 50, 0, None):
        load.renew(request_id, decoded_tokens=tokens, now=0.0)

    assert 80 == load.decoded_tokens("w1")


def test_what_decodes_is_prefilled(routers: Routers) -> None:
    """All know it within 20 ms, and nobody takes it for a measurement of a first token."""
    load = routers.loads["a"]
    request_id = load.begin("w1", prefill_tokens=1_000_000, now=0.0)
    routers.run(1.0)
    load.renew(request_id, decoded_tokens=0, now=routers.now)
    routers.run(0.02)
    before = routers.backlogs()
    load.renew(request_id, decoded_tokens=1, now=routers.now)
    routers.run(0.02)

    assert all(before)
    assert [0] * 3 == routers.backlogs()
    assert [1] * 3 == routers.counts()
    load.first_token(request_id, now=routers.now)
    routers.run(3.0)
    assert [DEFAULT_SPEED] * 3 == [each.speed("w1") for each in routers.loads.values()]


def test_it_renews(routers: Routers) -> None:
    """For another 600 seconds, whatever has been decoded."""
    load = routers.loads["a"]
    request_id = load.begin("w1", now=0.0)
    routers.run(500.0)
    load.renew(request_id, decoded_tokens=0, now=routers.now)
    routers.run(500.0)

    assert [1] * 3 == routers.counts()


@pytest.mark.parametrize("tokens", [-1, 1 << 32, 1.0, True, "5", float("nan")])
def test_what_cannot_be_decoded_is_refused(routers: Routers, tokens: Any) -> None:
    """Of a request that counts and of a name alone; the request is not renewed by it."""
    load = routers.loads["a"]
    named = load.begin("w1", is_tentative=True, now=0.0)
    request_id = load.begin("w1", now=0.0)
    routers.run(500.0)
    for each in (named, request_id):
        with pytest.raises(LocalError):
            load.renew(each, decoded_tokens=tokens, now=routers.now)
    routers.run(101.0)

    assert ([0] * 3, [0] * 3) == (decoded(routers), routers.counts())


def test_the_most_that_may_be_decoded_adds_up(routers: Routers) -> None:
    """At all routers alike."""
    load = routers.loads["a"]
    most = (1 << 32) - 1
    for _ in range(3):
        load.renew(load.begin("w1", now=0.0), decoded_tokens=most, now=0.0)
    routers.run(0.1)

    assert [3 * most] * 3 == decoded(routers)
