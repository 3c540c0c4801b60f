"""What is to be sent: messages that wait for the driver, by destination; bounded for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from attrs import frozen

from meshlib.gossip.events import MessageUnsendable
from meshlib.gossip.messages.dialects import Dialect
from meshlib.gossip.messages.frames import FrameHeader, FrameWriter
from meshlib.gossip.messages.kinds import Message
from meshlib.gossip.reports import Counters, EventQueue
from meshlib.gossip.speech import Speech
from meshlib.gossip.view import MembershipView
from meshlib.invariants import require
from meshlib.limits import PEER_QUEUE_BYTES_MAX

__all__ = ["Outbox", "Packet"]


@frozen(slots=True)
class Packet:
    """A frame and where it goes."""

    destination: str
    data: bytes


class Outbox:
    """Takes messages for addresses or members, and packs them into frames.

    Args:
        view: knows where members are reached.
        speech: knows in which format something is said to whom.
        events: hears of messages that fit no frame.
        counters: counts them.
    """

    __slots__ = ("_bytes", "_counters", "_events", "_speech", "_view", "_waiting", "dropped_count")

    def __init__(
        self, *, view: MembershipView, speech: Speech, events: EventQueue, counters: Counters
    ) -> None:
        self._view = view
        self._speech = speech
        self._events = events
        self._counters = counters
        self._waiting: dict[tuple[str, Dialect], list[bytes]] = {}
        self._bytes: dict[str, int] = {}
        self.dropped_count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, address: str, data: bytes, dialect: Dialect) -> bool:
        """Queue one message, packed in a dialect. O(1).

        Returns:
            False when the destination's queue is full: the message was dropped and counted;
            anti-entropy repairs what it carried.
        """
        size = self._bytes.get(address, 0) + len(data)
        if size > PEER_QUEUE_BYTES_MAX:
            self.dropped_count += 1
            return False
        self._bytes[address] = size
        self._waiting.setdefault((address, dialect), []).append(data)
        return True

    def send(self, address: str, message: Message) -> bool:
        """Queue one message for an address. O(size)."""
        dialect = self._speech.to(address, message)
        return self.put(address, dialect.encode_message(message), dialect)

    def send_to_all(self, addresses: Iterable[str], message: Message) -> list[str]:
        """Queue one message for several addresses, packed once in each format. O(size + addresses).

        Returns:
            The addresses whose queues are full.
        """
        packed: dict[Dialect, bytes] = {}
        full: list[str] = []
        for address in addresses:
            dialect = self._speech.to(address, message)
            data = packed.get(dialect)
            if data is None:
                data = packed[dialect] = dialect.encode_message(message)
            if not self.put(address, data, dialect):
                full.append(address)
        return full

    def send_to_member(self, name: str, message: Message) -> bool:
        """Queue one message for a member; False when it is not known or its queue is full."""
        member = self._view.members.get(name)
        if member is None or name == self._view.name:
            return False
        return self.send(member.address, message)

    def drain(self, header: FrameHeader, *, bytes_max: int) -> list[Packet]:
        """Pack everything that waits into frames. O(size).

        Mostly the same messages wait for each neighbour, and no frame names whom it is for: what
        was packed for one is sent to those that follow and are to hear the same.
        """
        packets: list[Packet] = []
        packed: list[bytes] = []
        packed_in: Dialect | None = None
        frames: list[bytes] = []
        unsendable: list[int] = []
        for (address, dialect), messages in self._waiting.items():
            if dialect is not packed_in or messages != packed:
                packed, packed_in = messages, dialect
                frames, unsendable = self._pack(messages, header, dialect, bytes_max)
            for size in unsendable:
                self._note_unsendable(address, size)
            packets += [Packet(address, frame) for frame in frames]
        self._waiting = {}
        self._bytes = {}
        return packets

    def _pack(
        self, messages: Sequence[bytes], header: FrameHeader, dialect: Dialect, bytes_max: int
    ) -> tuple[list[bytes], list[int]]:
        """Return the frames of some messages, and the sizes of those that fit into none."""
        writer = FrameWriter(
            header, bytes_max=bytes_max, dialect=dialect, formats=self._speech.formats
        )
        unsendable = [len(message) for message in messages if not writer.add(message)]
        return writer.frames(), unsendable

    def _note_unsendable(self, destination: str, size: int) -> None:
        """Count and tell: what the message carried will not arrive by trying again."""
        self.dropped_count += 1
        self._counters.messages_unsendable += 1
        self._events.emit(MessageUnsendable(destination=destination, size=size))

    def diagnostics(self) -> Mapping[str, Any]:
        """Show how much waits, for whom."""
        return {
            "bytes": MappingProxyType(self._bytes),
            "message_counts": {
                (address, dialect.version): len(messages)
                for (address, dialect), messages in self._waiting.items()
            },
            "dropped_count": self.dropped_count,
        }

    def _check(self) -> None:
        """Assert that what waits for each destination is what is counted, and has a bound."""
        sizes: dict[str, int] = {}
        for (address, _), messages in self._waiting.items():
            require(self, messages, "an empty queue is kept")
            sizes[address] = sizes.get(address, 0) + sum(map(len, messages))
        require(self, sizes == self._bytes, "the bytes of a queue are miscounted")
        is_within = all(size <= PEER_QUEUE_BYTES_MAX for size in sizes.values())
        require(self, is_within, "a queue is over its limit")
