"""What carries frames between nodes: the two protocols, their counters, and addresses.

A transport moves whole frames, each to one address, without promise: a frame may be lost, and
what is lost is counted here and repaired by gossip. Nothing above this file knows of sockets.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol, Self

from attrs import define, frozen

from meshlib.arguments import check_text, kind_of
from meshlib.errors import ConfigError, InvalidTypeError, RejectReason
from meshlib.identity import is_unspecified_host

__all__ = [
    "FRAME_OVERHEAD_BYTES",
    "LinkFailure",
    "LinkFault",
    "PeerRefusedError",
    "QuietLog",
    "Receiver",
    "Transport",
    "TransportCounters",
    "is_unspecified",
    "join_address",
    "refusal_word",
    "split_address",
]

FRAME_OVERHEAD_BYTES = 128
"""What a waiting frame costs beside its bytes, so that a queue of tiny frames is bounded too."""


@define(slots=True, kw_only=True)
class TransportCounters:
    """What a transport has done and dropped since it was made. Only ever counts up.

    Args:
        frames_sent: frames handed to the operating system.
        bytes_sent: their bytes, without framing.
        frames_received: frames handed to the receiver.
        bytes_received: their bytes, without framing.
        frames_dropped_unreachable: sent to a peer whose link broke or could not be dialled.
        frames_dropped_queue_full: sent to a peer whose queue was full.
        frames_dropped_oversized: over the limit of one frame: a bug of the caller.
        frames_dropped_closed: sent after the transport was closed, or cut off by its closing.
        frames_malformed: incoming connections closed for a bad length or a bad frame.
        dials: attempts to reach a peer.
        dials_failed: those refused or timed out.
        links_lost: outgoing links that broke.
        links_closed_idle: outgoing links closed because nothing was sent on them.
        links_dropped: outgoing links given up because their peer was taken for Down.
        connections_accepted: incoming connections taken.
        connections_refused: incoming connections closed at once, over the listener's cap.
        hellos_refused: incoming connections with a wrong token, magic or version.
        hellos_timed_out: incoming connections that did not introduce themselves in time.
    """

    frames_sent: int = 0
    bytes_sent: int = 0
    frames_received: int = 0
    bytes_received: int = 0
    frames_dropped_unreachable: int = 0
    frames_dropped_queue_full: int = 0
    frames_dropped_oversized: int = 0
    frames_dropped_closed: int = 0
    frames_malformed: int = 0
    dials: int = 0
    dials_failed: int = 0
    links_lost: int = 0
    links_closed_idle: int = 0
    links_dropped: int = 0
    connections_accepted: int = 0
    connections_refused: int = 0
    hellos_refused: int = 0
    hellos_timed_out: int = 0


class LinkFault(StrEnum):
    """Why a link could not be made, or did not last."""

    REFUSED = "refused"
    """Nothing listens there."""

    UNRESOLVABLE = "unresolvable"
    """The name of the host is not known."""

    TIMED_OUT = "timed out"
    """Nobody answered."""

    WRONG_TOKEN = "wrong token"  # noqa: S105 - what the peer said, and no secret
    """The peer asks for another token."""

    WRONG_CLUSTER = "wrong cluster"
    """The peer is of a cluster of another name."""

    WRONG_VERSION = "wrong version"
    """The peer speaks another version."""

    TLS = "tls"
    """The handshake failed."""

    CLOSED = "closed"
    """It was made, and the peer closed it without a reason."""

    ABSENT = "absent"
    """No node takes frames there just now, by the word of what carries them: its process has ended,
    or lives and cannot reach what carries them."""

    CARRIER = "carrier lost"
    """What carries the frames of all links cannot be reached: it says nothing of the peer."""

    OTHER = "other"
    """Whatever the system says."""


_FAULT_OF_REASON = {
    RejectReason.CLUSTER: LinkFault.WRONG_CLUSTER,
    RejectReason.VERSION: LinkFault.WRONG_VERSION,
}


_FAULT_OF_WORD = {
    str(fault): fault for fault in (LinkFault.WRONG_TOKEN, *_FAULT_OF_REASON.values())
}


@frozen(slots=True)
class LinkFailure:
    """One attempt to reach a peer that came to nothing.

    Args:
        fault: what kind.
        detail: what the system or the peer said, in one line; may be empty.
    """

    fault: LinkFault
    detail: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Return what an error of dialling means."""
        detail = str(getattr(error, "strerror", None) or error)
        if isinstance(error, PeerRefusedError):
            return cls(error.fault, detail)
        if isinstance(error, ConnectionRefusedError):
            return cls(LinkFault.REFUSED, detail)
        if isinstance(error, socket.gaierror):
            return cls(LinkFault.UNRESOLVABLE, detail)
        if isinstance(error, TimeoutError):
            return cls(LinkFault.TIMED_OUT, detail)
        if isinstance(error, ssl.SSLError):
            return cls(LinkFault.TLS, detail)
        if isinstance(error, ConnectionResetError | BrokenPipeError):
            return cls(LinkFault.CLOSED, detail)
        return cls(LinkFault.OTHER, detail or type(error).__name__)

    @classmethod
    def told(cls, reason: str) -> Self:
        """Return what a peer's word for a refusal means; see `refusal_word`.

        One that speaks says of itself neither that nobody listens nor that nobody answers.
        """
        return cls(_FAULT_OF_WORD.get(reason, LinkFault.CLOSED))

    def __str__(self) -> str:
        return f"{self.fault}: {self.detail}" if self.detail else str(self.fault)


class PeerRefusedError(ConnectionError):
    """A peer was reached and refused the connection.

    Args:
        fault: why.
        detail: its words.
    """

    def __init__(self, fault: LinkFault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


def refusal_word(reason: RejectReason | None) -> str:
    """Return the word that tells a peer why its connection is closed; empty for none."""
    return "" if reason is None else str(_FAULT_OF_REASON.get(reason, ""))


class Receiver(Protocol):
    """Where a transport delivers. The plain methods return at once and never raise."""

    def frame_received(self, data: bytes, sender: str) -> bool:
        """Take one frame.

        Args:
            data: the frame, as it was sent; at most `limits.FRAME_BYTES_MAX`.
            sender: where it came from, for logs; not the address to answer to.

        Returns:
            True when more is welcome. False: this one was taken, and the transport should stop
            reading where it came from until `wait_for_room` returns; what it delivers all the
            same may be dropped.
        """
        ...

    async def wait_for_room(self) -> None:
        """Return when frames are welcome again."""

    def connection_lost(self, address: str, failure: LinkFailure | None = None) -> None:
        """Hear that the outgoing link to an address broke, or could not be made, and why."""

    def link_busy(self, address: str, *, is_busy: bool) -> None:
        """Hear that much waits for the link to an address, or that it has gone out since.

        Frames are still taken while a link is busy; who holds back what can be joined, or sent
        later, wastes less of it.
        """

    def carrier_changed(self, *, is_up: bool) -> None:
        """Hear that what carries the frames of all links is gone, or that it is back.

        Only a transport that has such a thing calls it. Until it is back, silence says nothing of
        anybody: see `Engine.excuse_all`.
        """


class Transport(Protocol):
    """Carries frames to addresses. Two connections join two peers, one for each direction."""

    @property
    def address(self) -> str:
        """Where peers reach this transport, as `host:port`; known once it was started."""
        ...

    @property
    def counters(self) -> TransportCounters:
        """What was done and dropped so far."""
        ...

    async def start(self, receiver: Receiver) -> None:
        """Listen, and deliver to `receiver` from now on.

        Raises:
            OSError: the address cannot be listened on. Nothing was started.
            StateError: started before.
        """

    def send(self, address: str, data: bytes) -> bool:
        """Queue one frame; never blocks and never raises on the network's account.

        Returns:
            False when it was dropped at once (and counted): the peer's queue is full, the peer
            cannot be reached, or the transport is closed. True promises nothing more than that
            it was queued.
        """
        ...

    def drop_link(self, address: str) -> None:
        """Give up the outgoing link to an address, and what waits on it, without a report.

        The peer is taken for Down. A connection that a cut has silenced sleeps ever longer
        between two tries; the next frame is to be carried by a fresh one instead.

        Args:
            address: one without a link is ignored.
        """

    def end_pause(self, address: str) -> None:
        """Dial again what could not be reached a moment ago, for its peer was heard.

        A peer that has just started waits for an answer, and may go on without one.

        Args:
            address: one that is not waited for is ignored.
        """

    def close_sender(self, sender: str, *, reason: RejectReason | None = None) -> None:
        """Close the incoming connection that a frame came on: it carried what nobody sends.

        Args:
            sender: as it was given to `Receiver.frame_received`; one that is gone is ignored.
            reason: what was wrong, to be told to the sender where the transport can.
        """

    async def close(self, *, drain_s: float) -> None:
        """Stop listening, send what is queued for up to `drain_s` seconds, and close.

        Idempotent. With 0 it cuts everything off at once.
        """


_VERBS_OF_A_TRANSPORT = ("start", "send", "drop_link", "end_pause", "close_sender", "close")


def check_transport(transport: object) -> None:
    """Refuse what is no transport. O(1).

    Raises:
        InvalidTypeError: it lacks one of the verbs of `Transport`.
    """
    lacking = [verb for verb in _VERBS_OF_A_TRANSPORT if not hasattr(transport, verb)]
    if lacking:
        raise InvalidTypeError(
            f"transport must be a Transport, such as TcpTransport(...), not {kind_of(transport)}: "
            f"it lacks {', '.join(lacking)}"
        )


class QuietLog:
    """A logger that says each kind of thing at most once a minute, and how often it happened.

    What peers can cause must not be able to fill a disk.

    Args:
        logger: where it goes.
        interval_s: the least time between two lines of one kind, in seconds.
        clock: monotonic seconds.
    """

    __slots__ = ("_clock", "_interval_s", "_kinds", "_logger")

    def __init__(
        self,
        logger: logging.Logger,
        *,
        interval_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}

    def tell(self, kind: str, detail: str) -> None:
        """Warn, or count it when its kind was logged within the interval.

        Args:
            kind: a constant of the program, never something a peer chose.
            detail: the rest of the line; must hold no secret.
        """
        now = self._clock()
        logged_at, suppressed = self._kinds.get(kind, (float("-inf"), 0))
        if now - logged_at < self._interval_s:
            self._kinds[kind] = (logged_at, suppressed + 1)
            return
        self._kinds[kind] = (now, 0)
        if suppressed:
            detail = f"{detail} ({suppressed:,} more since the last such line)"
        self._logger.warning("%s: %s", kind, detail)


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port` or `[ipv6]:port`.

    Raises:
        ConfigError: no host, no port, or a port outside 0 to 65,535.
        InvalidTypeError: it is no text.
    """
    check_text("an address", address)
    host, colon, port_text = address.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if is_bracketed:
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{address!r} is no address: write an IPv6 host in brackets")
    if not colon or not host:
        raise ConfigError(f"{address!r} is no address: it must be host:port")
    if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > 65_535:
        raise ConfigError(f"{address!r} is no address: its port must be 0 to 65535")
    return host, int(port_text)


def join_address(host: str, port: int) -> str:
    """Join a host and a port to an address; an IPv6 host is put in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_unspecified(host: str) -> bool:
    """Tell whether a host means "every interface" (0.0.0.0, ::), which no peer can dial.

    The one judgement of the whole library, `meshlib.identity.is_unspecified_host`: all forms
    that resolvers read as such are told, `0` and IPv4 mapped into IPv6 among them.

    Args:
        host: a literal or a name, without a port.
    """
    return is_unspecified_host(host)
