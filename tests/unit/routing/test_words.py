"""A request's end is said to whichever router the caller reaches."""

from __future__ import annotations

import pytest
from support.mini_network import MiniNetwork

from meshlib.codec import pack
from meshlib.errors import DecodeError, RemoteError, UnknownKeyError, VersionMismatch
from meshlib.identity import actor_id
from meshlib.routing import RequestWord, SharedLoad, Word, hear_word, router_of

ACTOR = actor_id("n1", 7)


@pytest.fixture
def pair() -> MiniNetwork:
    network = MiniNetwork()
    network.start("n0", seeds=())
    network.start("n1")
    network.run(2.0)
    network.nodes["n0"].sync.sync_worker_state("w", model_id="m", url="u", health=True, load=0)
    return network


def counts(network: MiniNetwork) -> list[int]:
    """Let what is said arrive, and return how many requests each node counts."""
    network.pump("n0")
    network.pump("n1")
    network.run(0.2)
    return [node.sync.load.request_count("w") for node in network.nodes.values()]


def test_an_end_may_be_said_to_another_router(pair: MiniNetwork) -> None:
    """It is over for both."""
    here, there = pair.nodes.values()
    request_id = here.begin("w", prefill_tokens=1000, now=pair.now)
    assert [1, 1] == counts(pair)
    there.end(request_id, now=pair.now)

    assert [0, 0] == counts(pair)
    with pytest.raises(UnknownKeyError):
        here.end(request_id, now=pair.now)


def test_what_is_said_elsewhere_counts_as_said(pair: MiniNetwork) -> None:
    """A first token takes the prefill away; what is tentative counts once anybody says an end."""
    here, there = pair.nodes.values()
    first = here.begin("w", is_tentative=True, now=pair.now)
    assert [0, 0] == counts(pair)
    there.end(first, now=pair.now)
    counts(pair)
    second = here.begin("w", prefill_tokens=1_000_000, is_tentative=True, now=pair.now)
    assert [1, 1] == counts(pair)
    assert here.sync.load.backlog("w", now=pair.now) > 0
    there.first_token(second, now=pair.now)
    there.renew_request(second, now=pair.now)

    assert [1, 1] == counts(pair)
    assert 0 == there.sync.load.backlog("w", now=pair.now)


def test_a_request_that_was_renewed_elsewhere_goes_on(pair: MiniNetwork) -> None:
    """For another ten minutes from then."""
    here, there = pair.nodes.values()
    request_id = here.begin("w", now=pair.now)
    pair.run(400)
    there.renew_request(request_id, now=pair.now)
    counts(pair)
    pair.run(400)
    assert [1, 1] == counts(pair)
    pair.run(400)

    assert [0, 0] == counts(pair)


def test_what_a_request_has_decoded_may_be_said_elsewhere(pair: MiniNetwork) -> None:
    """The router that has it counts it, and tells it to the one that was told."""
    here, there = pair.nodes.values()
    request_id = here.begin("w", prefill_tokens=1000, now=pair.now)
    counts(pair)
    there.renew_request(request_id, decoded_tokens=500, now=pair.now)
    counts(pair)
    pair.run(2.5)

    assert [500, 500] == [node.sync.load.decoded_tokens("w") for node in (here, there)]


@pytest.mark.parametrize(
    "name", ["", "x", "-", f"{ACTOR.hex()}-1", f"{ACTOR.hex()}", "z" * 32 + "-1"]
)
def test_what_is_nobody_s_request_is_unknown(pair: MiniNetwork, name: str) -> None:
    """A start of a router that is gone among them."""
    for node in pair.nodes.values():
        with pytest.raises(UnknownKeyError):
            node.end(name, now=pair.now)


def test_nobody_is_told_of_a_router_that_is_down(pair: MiniNetwork) -> None:
    """Its requests went with it."""
    here, there = pair.nodes.values()
    request_id = here.begin("w", now=pair.now)
    counts(pair)
    pair.kill("n0")
    pair.run(30)
    with pytest.raises(UnknownKeyError):
        there.end(request_id, now=pair.now)


def test_a_name_says_whose_request_it_is() -> None:
    """And nothing else does."""
    load = SharedLoad(ACTOR)

    assert ACTOR == router_of(load.begin("w", now=0.0))
    assert None is router_of(f"{ACTOR.hex()[:-1]}-1")


def test_a_word_is_read_as_it_was_written() -> None:
    """Each of them."""
    for word in Word:
        said = RequestWord(ACTOR, word, "a-1", 77)
        assert said == RequestWord.decode(said.encode())


@pytest.mark.parametrize(
    "wire",
    [
        (), (1,), (1, ACTOR, "end"), (1, ACTOR, "end", "a"), (1, b"short", "end", "a", 0),
        (1, ACTOR, "begin", "a", 0), (1, ACTOR, "end", 5, 0), (1, ACTOR, "end", "a" * 65, 0),
        (1, ACTOR, "renew", "a", -1), (1, ACTOR, "renew", "a", 1 << 32),
        (1, ACTOR, "renew", "a", True), (1, ACTOR, "end", "a", 0, 0), 5, (0, ACTOR),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_word_is_refused(wire: object) -> None:
    """With nothing changed."""
    with pytest.raises(RemoteError):
        RequestWord.decode(pack(wire))


def test_a_word_of_another_version_is_told_from_no_word() -> None:
    """A newer node may say more."""
    with pytest.raises(VersionMismatch):
        RequestWord.decode(pack((2, ACTOR, "end", "a")))


def test_nobody_speaks_in_another_s_name() -> None:
    """The link vouches for the sender."""
    load = SharedLoad(actor_id("n0", 1))
    request_id = load.begin("w", now=0.0)
    word = RequestWord(ACTOR, Word.END, request_id).encode()
    with pytest.raises(DecodeError):
        hear_word(load, word, sender="n2", now=0.0)
    assert load.has(request_id)
    hear_word(load, word, sender="n1", now=0.0)

    assert not load.has(request_id)
