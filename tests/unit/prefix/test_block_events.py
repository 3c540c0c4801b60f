"""An index by what an engine says of its cache."""

from __future__ import annotations

import pytest

from meshlib.errors import LimitError
from meshlib.prefix import (
    BlockEvent,
    BlockIndex,
    BlocksCleared,
    BlocksRemoved,
    BlocksStored,
    Match,
    token_chain,
)

CHAIN = token_chain(range(64))


def test_events_make_what_is_matched() -> None:
    """What is stored matches, from the beginning to the first gap; twice is once."""
    index = BlockIndex(is_by_block=True)
    events: list[BlockEvent] = [BlocksStored(tuple(CHAIN)), BlocksRemoved((CHAIN[2], 7))]

    assert 5 == index.apply_events(events, tenant="w", access=1)
    assert Match(("w",), 2) == index.match(CHAIN)
    index.apply_events(events, tenant="w", access=1)

    assert Match(("w",), 2) == index.match(CHAIN)
    assert 3 == len(index)
    index._check()


def test_a_cleared_cache_is_empty_and_those_of_others_are_not() -> None:
    """Of one tenant everything, of another nothing."""
    index = BlockIndex(is_by_block=True)
    for tenant in ("w", "x"):
        index.apply_events([BlocksStored(tuple(CHAIN))], tenant=tenant, access=1)

    assert len(CHAIN) == index.apply_events([BlocksCleared()], tenant="w", access=2)
    assert Match(("x",), len(CHAIN)) == index.match(CHAIN)


def test_an_event_that_does_not_fit_is_refused_and_those_before_it_stand() -> None:
    """The index is as it was before that event."""
    index = BlockIndex(blocks_max=3, is_by_block=True)
    events = [BlocksStored(tuple(CHAIN[:2])), BlocksStored(tuple(CHAIN[2:]))]

    with pytest.raises(LimitError):
        index.apply_events(events, tenant="w", access=1)

    assert 2 == len(index)
    index._check()
