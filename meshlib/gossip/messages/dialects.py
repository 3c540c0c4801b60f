"""The formats in which nodes can speak: how each lays out its header and its messages.

One number, the *format*, names all of it: the header of a frame, its messages, the entries in
them and the pages of a state. A node reads every format from its oldest to its newest, and writes
to each peer in one that the peer reads: see `speech.py`. `FORMAT_NEWEST` of
`meshlib.limits` is what this release writes at best.

Rules for whoever makes a next format:
- Neighbours speak with each other: a release reads the format before its newest, and writes it.
- A dialect is never changed once a release has carried it; a new one is made from it, `evolve`d.
- What is compared and not read (the hashes of vectors, of tables, of content) stays the same in
  both: a digest is of what a state means, and never of the bytes that a format makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from attrs import frozen

from meshlib.codec import pack
from meshlib.errors import DecodeError
from meshlib.gossip.messages.fields import Layout
from meshlib.gossip.messages.kinds import MESSAGE_TYPES, Message
from meshlib.limits import FORMAT_NEWEST
from meshlib.reading import is_integer, read_rows, read_tree
from meshlib.replication import PAGE_VERSION

__all__ = [
    "DIALECTS",
    "Dialect",
    "HeaderField",
    "Kind",
    "MessageLayout",
    "decode_message",
    "encode_message",
    "register_dialect",
]


class MessageLayout(Protocol):
    """Reads and writes the fields of one kind of message: `Layout`, or one made from it."""

    @property
    def width(self) -> int:
        """How many places the fields take."""
        ...

    @property
    def write(self) -> Callable[[Any], Sequence[Any]]:
        """What lays out the fields of a message."""
        ...

    def read(self, fields: Sequence[Any]) -> Any:
        """Check the fields and make the message, or raise a `RemoteError`."""
        ...


@frozen(slots=True)
class Kind:
    """How one kind of message is said in a dialect.

    Args:
        code: its number there; never used for another kind.
        layout: of its fields.
    """

    code: int
    layout: MessageLayout


@frozen(slots=True)
class HeaderField:
    """A field that a dialect has in its header behind those that all have.

    Args:
        value: what is written there by this process.
        read: checks what came, or raises a `RemoteError`.
    """

    value: Any
    read: Callable[[Any], Any]


class Dialect:
    """How messages are said in one format.

    Args:
        version: the format, 1 to 255.
        kinds: every kind of message that can be said in it.
        page_version: of the pages of a state that go with it.
        header_fields: what its header has beyond the fields of `FrameHeader`, in order.
    """

    __slots__ = ("_by_code", "_ways", "header_fields", "kinds", "page_version", "version")

    def __init__(
        self,
        version: int,
        *,
        kinds: Mapping[type, Kind],
        page_version: int,
        header_fields: tuple[HeaderField, ...] = (),
    ) -> None:
        self.version: Final = version
        self.kinds: Final = dict(kinds)
        self.page_version: Final = page_version
        self.header_fields: Final = header_fields
        self._by_code = {kind.code: kind.layout for kind in kinds.values()}
        self._ways = {each: (kind.code, kind.layout.write) for each, kind in kinds.items()}

    def encode_message(self, message: Message) -> bytes:
        """Pack one message. O(size)."""
        code, write = self._ways[type(message)]
        data: bytes = pack((code, *write(message)))
        return data

    def decode_message(self, data: bytes) -> Message:
        """Unpack and check one message. O(size).

        Raises:
            DecodeError: malformed, of an unknown kind, or with a field out of its range.
            LimitExceeded: a field over its limit.
        """
        tree = read_rows(read_tree(data), "a message")
        layout = self._by_code.get(tree[0]) if tree and is_integer(tree[0]) else None
        if layout is None:
            raise DecodeError("not a message of a known kind")
        message: Message = layout.read(tree[1:])
        return message

    def decode_from_newer(self, data: bytes) -> tuple[Message | None, bool]:
        """Unpack a message of a peer that is a version ahead and speaks this dialect. O(size).

        Such a one may know kinds and fields that did not matter to it when it left them in:
        they are passed over. All that is known here is checked as ever.

        Returns:
            the message, None for a kind that is not known here, and whether anything was passed
            over.

        Raises:
            DecodeError: malformed, or with a field out of its range.
            LimitExceeded: a field over its limit.
        """
        tree = read_rows(read_tree(data), "a message")
        if not tree or not is_integer(tree[0]) or tree[0] < 1:
            raise DecodeError("not a message")
        layout = self._by_code.get(tree[0])
        if layout is None:
            return None, True
        return layout.read(tree[1 : layout.width + 1]), len(tree) > layout.width + 1


DIALECTS: Final[dict[int, Dialect]] = {}
"""Every dialect that this process knows, by its format. A node speaks those of its range alone."""


def register_dialect(dialect: Dialect) -> None:
    """Make a dialect known, in the place of one of its format. O(1)."""
    DIALECTS[dialect.version] = dialect


def _kind(message: type[Any]) -> Kind:
    """Return how a kind of message is said that is laid out as it is declared."""
    return Kind(message.code, Layout(message))


register_dialect(
    Dialect(
        FORMAT_NEWEST,
        kinds={each: _kind(each) for each in MESSAGE_TYPES},
        page_version=PAGE_VERSION,
    )
)

encode_message: Final = DIALECTS[FORMAT_NEWEST].encode_message
"""Packs one message in the newest format; see `Dialect.encode_message`."""

decode_message: Final = DIALECTS[FORMAT_NEWEST].decode_message
"""Unpacks one message of the newest format; see `Dialect.decode_message`."""
