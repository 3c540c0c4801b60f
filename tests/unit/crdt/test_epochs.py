"""What the number of an epoch says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshlib.clock import Stamp
from meshlib.crdt import open_epoch, shut_epoch, shut_through, stamp_of_epoch

STAMPS = st.builds(
    Stamp,
    wall_ms=st.integers(0, 1 << 42),
    logical=st.integers(0, (1 << 16) - 1),
    actor=st.just(b"a" * 16),
)
EPOCHS = st.one_of(
    st.integers(0, 1 << 58),
    st.builds(lambda stamp: open_epoch(stamp, above=0), STAMPS),
    st.builds(lambda stamp: shut_epoch(stamp, above=0), STAMPS),
)


@given(stamp=STAMPS, above=EPOCHS)
def test_an_open_epoch_is_higher_and_names_nothing(stamp: Stamp, above: int) -> None:
    """Whatever was there before."""
    epoch = open_epoch(stamp, above=above)

    assert epoch > above
    assert shut_through(epoch) is None


@given(stamp=st.none() | STAMPS, above=EPOCHS)
def test_a_shut_epoch_is_higher_and_names_its_write_or_a_later_one(
    stamp: Stamp | None, above: int
) -> None:
    """And not one that is earlier than what was named before."""
    epoch = shut_epoch(stamp, above=above)
    named = shut_through(epoch)

    assert epoch > above
    assert named is not None
    assert stamp is None or named >= stamp[:2]
    assert named >= (shut_through(above) or (0, 0))


@given(stamp=STAMPS)
def test_what_is_written_after_the_named_write_is_later_than_the_name(stamp: Stamp) -> None:
    """By who has seen the epoch, and also where the millisecond has not passed."""
    named = stamp_of_epoch(shut_epoch(stamp, above=0))

    assert stamp[:2] <= named < (stamp.wall_ms + 1, 0)


@given(first=STAMPS, second=STAMPS)
def test_epochs_come_in_the_order_of_the_milliseconds(first: Stamp, second: Stamp) -> None:
    """So the last removal beats what was placed after the others."""
    if first.wall_ms < second.wall_ms:
        for made in (open_epoch, shut_epoch):
            for other in (open_epoch, shut_epoch):
                assert made(first, above=0) < other(second, above=0)
