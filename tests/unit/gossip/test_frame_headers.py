"""What stands before the messages of a frame: as short as it can be, and read in one way alone."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from meshlib.codec import pack, unpack
from meshlib.errors import ClusterMismatch, DecodeError
from meshlib.gossip.messages.dialects import DIALECTS, decode_message, encode_message
from meshlib.gossip.messages.frames import (
    FORMAT_VERSION,
    PREFIX_BYTES,
    FrameHeader,
    FrameWriter,
    decode_frame,
    seal,
)
from meshlib.gossip.messages.kinds import TransferAvailable, VolatileMessage
from meshlib.gossip.messages.replication import NUMBERED_DOCUMENTS
from meshlib.identity import INCARNATION_MAX, INCARNATION_SPAN, actor_id
from meshlib.limits import FORMATS, FRAME_BYTES_MAX
from meshlib.ratelimit.leases.kept.messages import KEEP_DOCUMENT, KEPT_DOCUMENT
from meshlib.ratelimit.leases.questions import ANSWER_DOCUMENT, QUESTION_DOCUMENT
from meshlib.routing.leases import LEASE_DOCUMENT
from meshlib.routing.load.messages import LOAD_DOCUMENT
from meshlib.routing.requests.words import WORD_DOCUMENT
from meshlib.testing.world.next_format import NEXT_FORMAT, NEXT_FORMATS

START = 1_835_008_000_000_968_890
HEADER = FrameHeader("mesh", "router-0", START, actor_id("router-0", START), "10.0.0.1:7946")
MESSAGE = encode_message(TransferAvailable())


def written(header: FrameHeader, version: int = FORMAT_VERSION) -> bytes:
    """Return a frame of one message."""
    formats = FORMATS if version == FORMAT_VERSION else NEXT_FORMATS
    writer = FrameWriter(
        header, bytes_max=FRAME_BYTES_MAX, dialect=DIALECTS[version], formats=formats
    )
    assert writer.add(DIALECTS[version].encode_message(TransferAvailable()))
    (frame,) = writer.frames()
    return frame


def sealed(*fields: Any) -> bytes:
    """Return the frame of a header of these fields."""
    return seal(pack((*fields, [MESSAGE])), FORMAT_VERSION, FORMATS)


@given(
    name=st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF), min_size=1, max_size=60),
    start=st.integers(0, INCARNATION_MAX),
    raised_by=st.integers(0, INCARNATION_SPAN - 1) | st.integers(0, 3),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    stored_at_ms=st.integers(0, 1 << 48) | st.just(0),
    version=st.sampled_from((FORMAT_VERSION, NEXT_FORMAT)),
)
def test_every_header_is_read_as_it_was_written(
    name: str,
    start: int,
    raised_by: int,
    flags: tuple[bool, bool, bool],
    stored_at_ms: int,
    version: int,
) -> None:
    """Whatever is 0, and after refutations; in the next format too, which leaves nothing out."""
    incarnation = min(start + raised_by, INCARNATION_MAX)
    header = FrameHeader(
        "mesh", name, incarnation, actor_id(name, start), "h:1", *flags, stored_at_ms
    )

    frame = decode_frame(written(header, version), cluster="mesh", formats=NEXT_FORMATS)

    assert header == frame.header


@pytest.mark.parametrize(
    ("header", "left"),
    [
        (HEADER, []),
        (evolve(HEADER, is_ready=True), [1]),
        (evolve(HEADER, incarnation=START + 2), [0, 2]),
        (evolve(HEADER, is_alone=True, stored_at_ms=5), [4, 0, 5]),
    ],
)
def test_what_is_0_at_the_end_is_left_out(header: FrameHeader, left: list[int]) -> None:
    """A node at rest says where it is, who it is, and that it is ready."""
    tree = unpack(written(header)[PREFIX_BYTES:])

    assert ("mesh", "router-0", header.incarnation, "10.0.0.1:7946", *left, (MESSAGE,)) == tree


@pytest.mark.parametrize(
    "more",
    [
        [0], [1, 0], [1, 0, 0], [1, 0, 5, 0], [8], [True], [1.0], [None], ["1"], [-1],
        [0, START + 1], [0, -1], [0, INCARNATION_SPAN], [0, 1.0], [0, True], [1, 0, -5],
        [1, 0, 1 << 63], [()],
    ],
)  # fmt: skip
def test_a_header_that_says_it_otherwise_is_refused(more: list[Any]) -> None:
    """Zeros at the end, a field too much, flags that are none, a start before the first."""
    with pytest.raises(DecodeError):
        decode_frame(sealed("mesh", "router-0", START, "10.0.0.1:7946", *more), cluster="mesh")


@pytest.mark.parametrize("count", range(4))
def test_a_header_that_lacks_a_field_is_refused(count: int) -> None:
    """Who sends, and from where, is never left out."""
    fields = ("mesh", "router-0", START, "10.0.0.1:7946")[:count]

    with pytest.raises(DecodeError):
        decode_frame(sealed(*fields), cluster="mesh")


def test_another_cluster_is_named_whatever_stands_behind_its_name() -> None:
    """Its header may be one that is no header here."""
    with pytest.raises(ClusterMismatch) as caught:
        decode_frame(sealed("other", 1, 2, 3), cluster="mesh")

    assert "other" in str(caught.value)


def test_the_start_of_a_sender_is_above_none() -> None:
    """An incarnation cannot have been raised by more than it is."""
    assert decode_frame(sealed("mesh", "a", 7, "h:1", 0, 7), cluster="mesh").header.actor == (
        actor_id("a", 0)
    )
    with pytest.raises(DecodeError):
        decode_frame(sealed("mesh", "a", 7, "h:1", 0, 8), cluster="mesh")


def test_documents_that_busy_clusters_speak_of_have_a_number() -> None:
    """Their names are those that their rooms give them, and their places never change."""
    assert (
        QUESTION_DOCUMENT, ANSWER_DOCUMENT, KEEP_DOCUMENT, KEPT_DOCUMENT, LOAD_DOCUMENT,
        WORD_DOCUMENT, LEASE_DOCUMENT,
    ) == NUMBERED_DOCUMENTS  # fmt: skip


@pytest.mark.parametrize(("place", "document"), [*enumerate(NUMBERED_DOCUMENTS, start=1), (0, "d")])
def test_a_volatile_message_comes_back_by_name(place: int, document: str) -> None:
    """By its number where it has one, and by its name where it has none."""
    message = VolatileMessage(document, b"payload")
    data = encode_message(message)

    assert (18, place or document, b"payload") == unpack(data)
    assert message == decode_message(data)


@pytest.mark.parametrize("document", [0, -1, len(NUMBERED_DOCUMENTS) + 1, True, None, 1.0, b"app"])
def test_a_number_that_stands_for_no_document_is_refused(document: Any) -> None:
    """And whatever is neither a number nor a name."""
    with pytest.raises(DecodeError):
        decode_message(pack((18, document, b"payload")))


@pytest.mark.parametrize("document", NUMBERED_DOCUMENTS)
def test_a_document_that_has_a_number_is_not_told_by_name(document: str) -> None:
    """One meaning has one form."""
    with pytest.raises(DecodeError, match="by it"):
        decode_message(pack((18, document, b"payload")))
