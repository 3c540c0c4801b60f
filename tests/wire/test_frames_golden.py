"""Golden bytes of frames, of every message in them, and of the pages of state transfers.

`frames.json` has a section for each format: `frame 3`, `page 1`. The bytes of the sections that are
spoken (`FORMATS` of `meshlib/limits.py`, and every version of a page) are what nodes of today say
to their neighbours; they change only together with their format's version, so that no node reads
what another meant otherwise. When a test here fails because bytes have changed:

1. let the version grow: `FORMAT_NEWEST` in `meshlib/limits.py` for frames and messages, with a
   dialect of its own beside the one before (`meshlib/gossip/messages/dialects.py`), and
   `PAGE_VERSION` in `meshlib/replication/page_content.py` with a layout for pages;
2. name the change in `CHANGELOG.md` under "Wire format";
3. run `python tests/wire/test_frames_golden.py`, which adds the section of the new version and
   never changes an older one.

One step of the version does for all changes between two releases: `--again` writes the newest
sections once more, for a version that no release has carried. Older sections stay: a node of today
refuses their frames and pages as of another version, and never misreads them. A new message, or a
new field of one, is given an example below; a test fails until it is.

Reports of rate limits are not here: the volatile message carries them and does not look inside.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

import pytest
from attrs import NOTHING, evolve, fields

from meshlib.clock import HybridClock
from meshlib.codec import pack, unpack
from meshlib.errors import VersionMismatch
from meshlib.gossip.messages.dialects import DIALECTS, decode_message, encode_message
from meshlib.gossip.messages.frames import (
    FORMAT_VERSION,
    FrameHeader,
    FrameWriter,
    decode_frame,
)
from meshlib.gossip.messages.kinds import (
    ConflictNotice,
    EntriesMessage,
    ExchangeEqual,
    ExchangeRequest,
    GapRequest,
    IndirectPingFailed,
    IndirectPingRequest,
    JoinRequest,
    JoinResponse,
    MemberNews,
    MemberUpdates,
    Message,
    PingRequest,
    PingResponse,
    SeedAnswer,
    SeedQuestion,
    TransferAvailable,
    TransferNext,
    TransferPageMessage,
    TransferRequest,
    VectorExchange,
    VolatileMessage,
)
from meshlib.gossip.messages.offers import CompactOffer, compact
from meshlib.identity import actor_id
from meshlib.limits import FORMATS, FRAME_BYTES_MAX, WRITES_MAX
from meshlib.membership import MemberRecord, MemberStatus
from meshlib.node import MeshConfig, MeshNode
from meshlib.replication import Hole, LogEntry, Replica, ShortEntry, TransferPage
from meshlib.replication.page_content import PAGE_VERSION, PageContent

PATH = Path(__file__).with_name("frames.json")
CLUSTER = "mesh"
ALICE = actor_id("näme", (1 << 62) - 1)
BOB = actor_id("b", 7)
HASH_MAX = (1 << 64) - 1

ALIVE = MemberRecord(
    name="näme",
    incarnation=1 << 62,
    status=MemberStatus.ALIVE,
    address="127.0.0.1:8000",
    actor=ALICE,
    region="eu",
    zone="eu-1",
    version=3,
    formats=(3, 3),
)
SUSPECTED = MemberRecord(
    name="b",
    incarnation=7,
    status=MemberStatus.SUSPECTED,
    address="b:1",
    actor=BOB,
    formats=(3, 4),
)
DOWN = MemberRecord(
    name="c",
    incarnation=8,
    status=MemberStatus.DOWN,
    address="c:1",
    actor=actor_id("c", 8),
    formats=(2, 3),
)
LEAVING = MemberRecord(
    name="d",
    incarnation=9,
    status=MemberStatus.LEAVING,
    address="[::1]:1",
    actor=actor_id("d", 9),
    formats=(3, 4),
)

MESSAGES: dict[str, Message] = {
    "PingRequest": PingRequest(sequence=1, target="b", sender=ALIVE),
    "PingResponse": PingResponse(sequence=(1 << 63) - 1, wall_ms=1_750_000_000_000),
    "IndirectPingRequest": IndirectPingRequest(sequence=2, target="c"),
    "IndirectPingFailed": IndirectPingFailed(sequence=2),
    "JoinRequest": JoinRequest(sender=ALIVE),
    "JoinResponse": JoinResponse(members=(SUSPECTED, DOWN, LEAVING)),
    "JoinResponse of a page between": JoinResponse(members=(ALIVE,), after="d", until="näme"),
    "SeedQuestion": SeedQuestion(address="router-1.mesh:7946"),
    "SeedAnswer": SeedAnswer(address="[::1]:1"),
    "ConflictNotice": ConflictNotice(name="a", address="a:1", incarnation=9),
    "MemberUpdates": MemberUpdates(news=(MemberNews(SUSPECTED, suspector="c"), MemberNews(DOWN))),
    "EntriesMessage": EntriesMessage(
        entries=(
            LogEntry(actor=ALICE, first=1, last=1, document="app", delta=b"one"),
            LogEntry(actor=BOB, first=2, last=300, document="tree:llama", delta=b""),
        )
    ),
    "EntriesMessage of a short entry": EntriesMessage(
        entries=(
            ShortEntry(
                actor=ALICE,
                first=4,
                last=4,
                document="tree:llama",
                rest=b"before, between, after",
                digest=HASH_MAX,
                holes=(Hole(6, 1 << 63, 0, 6000), Hole(9, 7, 12, 13)),
            ),
        ),
        is_pushed=True,
    ),
    "EntriesMessage that asks": EntriesMessage(
        entries=(), wants_acknowledgement=True, is_pushed=False
    ),
    "EntriesMessage pushed": EntriesMessage(
        entries=(), wants_acknowledgement=False, is_pushed=True
    ),
    "GapRequest": GapRequest(gaps=((ALICE, 3, 4), (BOB, 1, WRITES_MAX))),
    "ExchangeRequest": ExchangeRequest(vector_hash=HASH_MAX),
    "ExchangeRequest with all": ExchangeRequest(
        vector_hash=1, table_hash=2, content_digest=HASH_MAX, wants_whole=True
    ),
    "ExchangeEqual": ExchangeEqual(vector_hash=1 << 63),
    "VectorExchange": VectorExchange(vector={BOB: 5, ALICE: 1 << 62}),
    "VectorExchange in part": VectorExchange(
        vector={ALICE: 0}, wants_reply=True, is_partial=True, rest_hash=HASH_MAX
    ),
    "TransferAvailable": TransferAvailable(),
    "TransferRequest": TransferRequest(
        session=1, offer=CompactOffer(documents={"app": ("lww_map", (0, HASH_MAX)), "b": ("x", ())})
    ),
    "TransferRequest of a repair": TransferRequest(
        session=1, offer=CompactOffer(documents={}, groups=(5, 6)), is_repair=True
    ),
    "TransferPageMessage": TransferPageMessage(
        session=1, index=0, document="app", state=b"state", vector=None
    ),
    "TransferPageMessage, the last": TransferPageMessage(
        session=1, index=2, document="", state=b"", vector={ALICE: 3, BOB: 1}
    ),
    "TransferNext": TransferNext(session=1, index=2),
    "VolatileMessage": VolatileMessage(document="rate_limit:report", payload=b"payload"),
    "VolatileMessage of a numbered document": VolatileMessage("load:word", payload=b"payload"),
}

HEADER = FrameHeader(
    cluster=CLUSTER, name="näme", incarnation=1 << 62, actor=ALICE, address="127.0.0.1:8000"
)
READY = evolve(HEADER, is_ready=True, is_leaving=True, stored_at_ms=1_700_000_000_123)
ALONE = evolve(HEADER, is_ready=True, is_alone=True)
AHEAD = "frame of a node that is a version ahead"
FRAMES: dict[str, tuple[FrameHeader, tuple[Message, ...]]] = {
    "frame": (HEADER, (MESSAGES["TransferAvailable"],)),
    "frame of a ready node that leaves": (READY, (MESSAGES["TransferAvailable"],)),
    "frame of a node that began alone": (ALONE, (MESSAGES["TransferAvailable"],)),
    AHEAD: (HEADER, (MESSAGES["TransferAvailable"],)),
    "frame of two messages": (HEADER, (MESSAGES["PingResponse"], MESSAGES["TransferNext"])),
}

PAGES = {
    "page": PageContent(
        transfer=HASH_MAX, index=0, vector_hash=1 << 63, time=(1, 2), begun=(), part=b"part"
    ),
    "page, the last of a repair": PageContent(
        transfer=1,
        index=65_536,
        vector_hash=2,
        time=((1 << 48) - 1, (1 << 16) - 1),
        horizon=(1_750_000_000_000, 3),
        begun=(0, 255),
        part=b"",
        is_last=True,
        is_repair=True,
        is_whole=False,
        entry_count=20_004,
    ),
}


def message_hex(name: str, version: int = FORMAT_VERSION) -> str:
    """Return the bytes of a message, as it is said in a format."""
    return DIALECTS[version].encode_message(MESSAGES[name]).hex()


def page_hex(name: str, version: int = PAGE_VERSION) -> str:
    """Return the bytes of a page in a version."""
    return PAGES[name].encode(version).hex()


def frame_hex(name: str, version: int = FORMAT_VERSION, formats: tuple[int, int] = (3, 3)) -> str:
    """Return the bytes of a frame in a format, of a sender that speaks some."""
    header, messages = FRAMES[name]
    dialect = DIALECTS[version]
    if name == AHEAD:
        formats = (3, 4)
    writer = FrameWriter(header, bytes_max=FRAME_BYTES_MAX, dialect=dialect, formats=formats)
    for message in messages:
        assert writer.add(dialect.encode_message(message))
    (frame,) = writer.frames()
    return frame.hex()


@cache
def replica() -> Replica:
    """Return a replica with writes to a map, a set and a counter, all at one moment."""
    clock = HybridClock(ALICE, wall_clock=lambda: 1_750_000_000.0)
    made = Replica(actor=ALICE, clock=clock)
    made.open("app", type_tag="lww_map")
    made.open("tags", type_tag="or_set")
    made.open("visits", type_tag="g_counter")
    for number in range(8):

        def set_key(state: Any, context: Any, number: int = number) -> Any:
            key, value = f"k{number}", "x" * 300
            return state.set(key, value, stamp=context.stamp(), sequence=context.sequence)

        made.write("app", set_key)
    made.write("app", lambda s, c: s.remove("k1", stamp=c.stamp(), sequence=c.sequence))
    made.write("tags", lambda s, c: s.add("gpu", dot=c.dot()))
    made.write("visits", lambda s, c: s.increment(3, by=c.actor))
    made.flush()
    return made


def transferred(page_bytes_max: int, version: int = PAGE_VERSION) -> list[list[str]]:
    """Return the pages that a peer with nothing gets, each as its document and its bytes."""
    pages = replica().transfer_pages({}, page_bytes_max=page_bytes_max, page_version=version)
    return [[page.document, page.state.hex()] for page in pages]


def compared() -> dict[str, Any]:
    """Return what two nodes compare instead of states: both must hash alike."""
    offer = TransferRequest(session=1, offer=compact(replica().transfer_offer()))
    return {
        "vector hash": f"{replica().vector_hash():016x}",
        "content digest": f"{replica().content_digest():016x}",
        "offer": encode_message(offer).hex(),
    }


def table_hash() -> str:
    """Return the hash of a table of members: those in reach, of names that are sorted as text.

    Two nodes that agree would send each other whole tables for ever if they hashed them otherwise.
    """
    config = MeshConfig(name="näme", address="127.0.0.1:8000")
    node = MeshNode(config, rng=random.Random(1), wall_clock=lambda: 1_750_000_000.0, now=1.0)
    header = evolve(HEADER, name="z", actor=actor_id("z", 1 << 62), address="z:1")
    writer = FrameWriter(header, bytes_max=FRAME_BYTES_MAX)
    assert writer.add(encode_message(JoinResponse(members=(SUSPECTED, DOWN, LEAVING))))
    (frame,) = writer.frames()
    node.receive(frame, sender="z:1", now=2.0)
    known = {member.name: member.status for member in node.members()}
    assert known == {
        "b": MemberStatus.SUSPECTED, "c": MemberStatus.DOWN, "d": MemberStatus.LEAVING,
        "näme": MemberStatus.ALIVE,
    }  # fmt: skip
    hashed = node._engine._parts.tables.hash(1000.0)
    assert hashed
    return f"{hashed:016x}"


FRAME_FORMAT = f"frame {FORMAT_VERSION}"
PAGE_FORMAT = f"page {PAGE_VERSION}"


def frame_section(version: int) -> dict[str, Callable[[], Any]]:
    """Return how everything is made that is said in a format."""
    return {
        **{name: partial(message_hex, name, version) for name in MESSAGES},
        **{name: partial(frame_hex, name, version) for name in FRAMES},
        "what nodes compare": compared,
        "hash of a table of members": table_hash,
    }


def page_section(version: int) -> dict[str, Callable[[], Any]]:
    """Return how the pages of a version are made."""
    return {
        **{name: partial(page_hex, name, version) for name in PAGES},
        "transfer in one page a document": partial(transferred, 64 * 1024, version),
        "transfer in small pages": partial(transferred, 2048, version),
    }


GOLDEN: dict[str, dict[str, Callable[[], Any]]] = {
    **{f"frame {version}": frame_section(version) for version in range(FORMATS[0], FORMATS[1] + 1)},
    **{f"page {version}": page_section(version) for version in range(1, PAGE_VERSION + 1)},
}
"""For each format that is spoken today: a name, and how its bytes are made now."""

Sections = dict[str, dict[str, Any]]
"""For each format its names, and for each of them its bytes in hex."""

WRITTEN: Sections = json.loads(PATH.read_text()) if PATH.exists() else {}


VERSION_OF = {
    "frame": "FORMAT_NEWEST in meshlib/limits.py",
    "page": "PAGE_VERSION in meshlib/replication/page_content.py",
}


def advice(name: str, section: str) -> str:
    """Return what to do when bytes are no longer what they were."""
    return (
        f"the bytes of {name!r} are no longer those of {section!r}: let "
        f"{VERSION_OF[section.partition(' ')[0]]} grow, name the change in CHANGELOG.md under "
        "'Wire format', and run `python tests/wire/test_frames_golden.py`"
    )


def test_the_formats_of_today_are_golden() -> None:
    """Each format's version has its section."""
    assert [section for section in GOLDEN if section not in WRITTEN] == [], (
        "run `python tests/wire/test_frames_golden.py`"
    )


@pytest.mark.parametrize(
    ("section", "name"), [(section, name) for section in GOLDEN for name in GOLDEN[section]]
)
def test_bytes_change_only_with_the_version_of_their_format(section: str, name: str) -> None:
    """What is written now is what the section of its format's version has."""
    assert WRITTEN[section].get(name) == GOLDEN[section][name](), advice(name, section)


@pytest.mark.parametrize("section", GOLDEN)
def test_a_section_has_nothing_that_is_no_longer_said(section: str) -> None:
    """A message that is gone is a change of the format too."""
    assert [name for name in WRITTEN[section] if name not in GOLDEN[section]] == []


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_messages_are_read_as_what_they_were(name: str) -> None:
    """Every field comes back from the bytes."""
    assert MESSAGES[name] == decode_message(bytes.fromhex(WRITTEN[FRAME_FORMAT][name]))


def test_golden_frames_are_read_as_what_they_were() -> None:
    """The header and the messages, in order."""
    name = "frame of two messages"
    frame = decode_frame(bytes.fromhex(WRITTEN[FRAME_FORMAT][name]), cluster=CLUSTER)

    assert FRAMES[name] == (frame.header, frame.messages)


@pytest.mark.parametrize("name", PAGES)
def test_golden_pages_are_read_as_what_they_were(name: str) -> None:
    """Every field comes back from the bytes."""
    assert PAGES[name] == PageContent.decode(bytes.fromhex(WRITTEN[PAGE_FORMAT][name]))


@pytest.mark.parametrize("name", ["transfer in one page a document", "transfer in small pages"])
def test_golden_transfers_are_taken_by_a_replica(name: str) -> None:
    """A node that knows nothing holds, after them, what the sender held."""
    clock = HybridClock(BOB, wall_clock=lambda: 1_750_000_000.0)
    taker = Replica(actor=BOB, clock=clock)
    taker.begin_transfer()
    for document, state in WRITTEN[PAGE_FORMAT][name]:
        taker.absorb_page(TransferPage(document, bytes.fromhex(state)))
    taker.complete_transfer(replica().advertised_vector())

    assert taker.content_digest() == replica().content_digest()


def test_frames_and_pages_of_other_versions_are_refused_as_such() -> None:
    """Nothing of an older or newer format is read as if it were of today's."""
    frame = bytes.fromhex(WRITTEN[FRAME_FORMAT]["frame"])
    frames = [frame[:2] + bytes(((FORMAT_VERSION + 1) << 2,)) + frame[3:], *older("frame")]
    for data in frames:
        with pytest.raises(VersionMismatch):
            decode_frame(data, cluster=CLUSTER)
    page = pack((PAGE_VERSION + 1, *unpack(bytes.fromhex(WRITTEN[PAGE_FORMAT]["page"]))[1:]))
    for data in [page, *older("page")]:
        with pytest.raises(VersionMismatch):
            PageContent.decode(data)


def older(kind: str) -> list[bytes]:
    """Return a frame, or a page, of each version that is no longer spoken."""
    sections = [each for each in WRITTEN if each.startswith(kind) and each not in GOLDEN]
    return [bytes.fromhex(WRITTEN[section][kind]) for section in sections]


def test_every_kind_of_message_has_golden_bytes() -> None:
    """A message that is added without its bytes fails here."""
    assert set(get_args(Message)) == {type(each) for each in MESSAGES.values()}


EXAMPLES: tuple[Any, ...] = (
    *MESSAGES.values(),
    *PAGES.values(),
    *(header for header, _ in FRAMES.values()),
    ALIVE, SUSPECTED, MemberNews(SUSPECTED, suspector="c"), CompactOffer({}, (5,)),
)  # fmt: skip


@pytest.mark.parametrize("kind", sorted({type(each) for each in EXAMPLES}, key=str), ids=str)
def test_every_optional_field_has_golden_bytes(kind: type[Any]) -> None:
    """A field that is added with a default has an example that differs from it."""
    alike = [
        field.name
        for field in fields(kind)
        if field.default is not NOTHING
        and all(
            getattr(each, field.name) == field.default for each in EXAMPLES if type(each) is kind
        )
    ]

    assert alike == []


def merged(
    written: Sections, made: Sections, *, is_again: bool = False
) -> tuple[Sections, list[str]]:
    """Return the sections with what is new in them, and what must not change but would."""
    wrong = [
        advice(name, section)
        for section, lines in written.items()
        if section in made and not is_again
        for name in lines
        if made[section].get(name) != lines[name]
    ]
    return {**written, **made}, wrong


def test_writing_adds_what_is_new() -> None:
    """A new message joins its section, a new version gets one, older ones stay."""
    written = {"frame 1": {"a": "00"}, "page 1": {"p": "01"}}
    made = {"frame 2": {"a": "02"}, "page 1": {"p": "01", "q": "03"}}

    assert merged(written, made) == ({"frame 1": {"a": "00"}, **made}, [])


@pytest.mark.parametrize("now", [{"a": "ff"}, {"b": "00"}])
def test_writing_refuses_to_change_a_format(now: dict[str, str]) -> None:
    """Other bytes, or a message that is gone, need another version; `--again` is told to know."""
    written, made = {"frame 1": {"a": "00"}}, {"frame 1": now}
    _, wrong = merged(written, made)

    assert wrong == [advice("a", "frame 1")]
    assert "FORMAT_NEWEST" in wrong[0]
    assert merged(written, made, is_again=True) == (made, [])


def write(*, is_again: bool) -> int:
    """Write the sections of today's formats; return 1 when that would change what is written."""
    made = {
        section: {name: make() for name, make in each.items()} for section, each in GOLDEN.items()
    }
    sections, wrong = merged(WRITTEN, made, is_again=is_again)
    if wrong:
        sys.stderr.write("".join(f"{line}\n" for line in wrong))
        return 1
    PATH.write_text(json.dumps(sections, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(write(is_again="--again" in sys.argv[1:]))
