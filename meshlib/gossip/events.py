"""What a node tells its driver. Drained, never called back."""

from __future__ import annotations

from attrs import frozen

from meshlib.errors import RejectReason
from meshlib.identity import ActorId
from meshlib.membership import MemberRecord
from meshlib.replication import LostWrite, ReplicaEvent

__all__ = [
    "Began",
    "EntryRejected",
    "Event",
    "FormatChanged",
    "IdentityRenewed",
    "LeaveDelayed",
    "LocalPause",
    "MemberDown",
    "MemberForgotten",
    "MemberJoined",
    "MemberLeft",
    "MemberRecovered",
    "MemberSuspected",
    "MessageUnsendable",
    "NameConflict",
    "PacketRejected",
    "Refuted",
    "Rejoined",
    "StateDiverged",
    "StateRestored",
    "WritesRestamped",
]


@frozen(slots=True, kw_only=True)
class MemberJoined:
    """A member was met for the first time, or came back from Down or Leaving."""

    member: MemberRecord


@frozen(slots=True, kw_only=True)
class MemberSuspected:
    """A member did not answer, or others say so. It may still refute."""

    member: MemberRecord
    suspector: str


@frozen(slots=True, kw_only=True)
class MemberRecovered:
    """A suspected member refuted."""

    member: MemberRecord


@frozen(slots=True, kw_only=True)
class MemberDown:
    """A member did not refute in time."""

    member: MemberRecord


@frozen(slots=True, kw_only=True)
class MemberLeft:
    """A member said that it leaves."""

    member: MemberRecord


@frozen(slots=True, kw_only=True)
class MemberForgotten:
    """A member that was Down or had left is no longer kept."""

    member: MemberRecord


@frozen(slots=True, kw_only=True)
class NameConflict:
    """A live node of this node's name answered: this node has not joined.

    Args:
        name: the name that both claim.
        address: where the other one is reached.
    """

    name: str
    address: str


@frozen(slots=True, kw_only=True)
class Began:
    """This node is ready by its own decision: there was no ready peer whose state it could take.

    Args:
        peers: the members in reach, which now take this node's state; sorted.
        is_isolated: whether it knows of others and has met nobody.
    """

    peers: tuple[str, ...]
    is_isolated: bool


@frozen(slots=True, kw_only=True)
class FormatChanged:
    """Every member speaks a newer format by now, or one has come that does not.

    Args:
        before: the newest format that this node has used until now, to whoever reads it.
        spoken: the one from now on.
    """

    before: int
    spoken: int


@frozen(slots=True, kw_only=True)
class LeaveDelayed:
    """This node leaves later: what it has is not confirmed by ready members that stay.

    Args:
        peers: the members in reach that may still take it, sorted.
    """

    peers: tuple[str, ...]


@frozen(slots=True, kw_only=True)
class Refuted:
    """This node was accused and refuted by raising its incarnation."""

    incarnation: int


@frozen(slots=True, kw_only=True)
class LocalPause:
    """This node's own timer fired late: it was stopped, and accuses nobody for it."""

    late_s: float


@frozen(slots=True, kw_only=True)
class PacketRejected:
    """A frame was dropped, with nothing changed.

    Args:
        reason: why; the metric label.
        sender: where it came from, as the transport knows it.
        size: its bytes.
        detail: for the log.
    """

    reason: RejectReason
    sender: str
    size: int
    detail: str


@frozen(slots=True, kw_only=True)
class MessageUnsendable:
    """A message was larger than a frame may be, and was dropped.

    Args:
        destination: the address that it was for.
        size: its bytes.
    """

    destination: str
    size: int


@frozen(slots=True, kw_only=True)
class EntryRejected:
    """One replicated entry was refused, with nothing changed."""

    document: str
    actor: ActorId
    sequence: int
    reason: RejectReason
    detail: str


@frozen(slots=True, kw_only=True)
class IdentityRenewed:
    """This node was away for too long, or its actor is used elsewhere: it becomes a new writer.

    It adopts a peer's state; `Rejoined` tells when that is done.
    """

    old: ActorId
    new: ActorId


@frozen(slots=True, kw_only=True)
class Rejoined:
    """This node has adopted a peer's state and written again what only it had.

    Args:
        old: the actor until then.
        new: the actor from now on.
        kept: how many writes were made again.
        lost: acknowledged writes that something newer had replaced meanwhile.
    """

    old: ActorId
    new: ActorId
    kept: int
    lost: tuple[LostWrite, ...]


@frozen(slots=True, kw_only=True)
class WritesRestamped:
    """What this node wrote before it met anybody was stamped by a clock that was ahead.

    Before anybody was told of it, it was put under the time at which it was made: by the clocks of
    those it met, or by its own after that was set back. What somebody wrote later stays. The node
    is a new writer since.

    Args:
        old: the actor until then.
        new: the actor from now on.
        back_s: by how much the stamps are earlier now, in seconds.
    """

    old: ActorId
    new: ActorId
    back_s: float


@frozen(slots=True, kw_only=True)
class StateRestored:
    """A state transfer from a peer is complete."""

    peer: str
    page_count: int


@frozen(slots=True, kw_only=True)
class StateDiverged:
    """A peer with an equal vector holds other content: an invariant is broken.

    The peers exchange their whole state; please report it.
    """

    peer: str


Event = (
    MemberJoined
    | MemberSuspected
    | MemberRecovered
    | MemberDown
    | MemberLeft
    | MemberForgotten
    | NameConflict
    | Began
    | FormatChanged
    | LeaveDelayed
    | Refuted
    | LocalPause
    | PacketRejected
    | MessageUnsendable
    | EntryRejected
    | ReplicaEvent
    | IdentityRenewed
    | StateRestored
    | StateDiverged
    | Rejoined
    | WritesRestamped
)
