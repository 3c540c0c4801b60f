"""Every error of the package, split by whose fault it is.

    MeshError
    ├── NotReadyError              (TimeoutError) a node was not ready in time, or when asked
    ├── LocalError                 the caller's fault; nothing was changed
    │   ├── InvalidValueError      (ValueError) a value that cannot be kept or replicated
    │   │   └── InvalidFieldError  it names the field of a limit, a rule or a request
    │   ├── InvalidTypeError       (TypeError) a value of a type that cannot be kept
    │   ├── ConfigError            (ValueError) a setting that cannot hold
    │   ├── ForeignClockError      (ValueError) a `now` that is no reading of the node's clock
    │   ├── LimitError             (ValueError) the caller would cross one of `meshlib.limits`
    │   ├── StateError             (RuntimeError) a call that does not fit the state of the object
    │   │   ├── ClockAheadError    a write while this node's wall clock is far ahead
    │   │   └── ThreadError        a call from another thread than the node's
    │   ├── NameConflictError      (RuntimeError) the node's name is taken by a live node
    │   ├── DocumentTypeError      (TypeError) a document exists with another type
    │   ├── UnknownKeyError        (KeyError) nothing is kept under that name
    │   ├── MemberInReachError     (RuntimeError) a member that is there cannot be forgotten
    │   ├── EmptyRingError         (LookupError) a ring without nodes has no owners
    │   └── InsufficientRights     (ValueError) a bounded counter cannot spend what it does not hold
    ├── RemoteError                a peer's fault; what it sent was dropped and nothing was changed
    │   ├── DecodeError            bytes that are not what they claim to be
    │   ├── VersionMismatch        a wire or format version this node does not speak
    │   ├── ClusterMismatch        a frame of another cluster
    │   ├── LimitExceeded          more than one of `meshlib.limits` allows
    │   └── ClockSkewError         a timestamp too far ahead of this node's clock
    └── InternalError              a fault of this package: please report it
        └── BrokenInvariant        a part of a node is in a state that it can never be in

Errors carry typed fields; `reason` is a `RejectReason` and doubles as the label of a metric.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

__all__ = [
    "BrokenInvariant",
    "ClockAheadError",
    "ClockSkewError",
    "ClusterMismatch",
    "ConfigError",
    "DecodeError",
    "DocumentTypeError",
    "EmptyRingError",
    "ForeignClockError",
    "InsufficientRights",
    "InternalError",
    "InvalidFieldError",
    "InvalidTypeError",
    "InvalidValueError",
    "LimitError",
    "LimitExceeded",
    "LocalError",
    "MemberInReachError",
    "MeshError",
    "NameConflictError",
    "NotReadyError",
    "RejectReason",
    "RemoteError",
    "StateError",
    "ThreadError",
    "UnknownKeyError",
    "VersionMismatch",
    "check_several",
]

_DUMP_MAX: Final = 4096
"""Characters of a broken state that a message shows."""


class RejectReason(StrEnum):
    """Why something a peer sent was dropped. The value is the metric label."""

    MALFORMED = "malformed"
    CHECKSUM = "checksum"
    VERSION = "version"
    CLUSTER = "cluster"
    LIMIT = "limit"
    CLOCK = "clock"
    IDENTITY = "identity"
    TYPE = "type"


class MeshError(Exception):
    """Root of every error raised by this package."""


class NotReadyError(MeshError, TimeoutError):
    """A node was not ready in time, or not when asked. It goes on trying; nothing has changed.

    Args:
        story: what was tried and what came of it, one line each.
        timeout_s: how long was waited, in seconds; 0 when a call that never waits was refused.
        what: what is not known yet, when it was not readiness itself that was waited for.
        retry_after_s: when to ask again, in seconds.
    """

    def __init__(
        self,
        *,
        story: tuple[str, ...],
        timeout_s: float = 0.0,
        what: str = "",
        retry_after_s: float = 1.0,
    ) -> None:
        beginning = f"{what} is not known here yet" if what else f"not ready after {timeout_s:g} s"
        super().__init__(f"{beginning}: {'; '.join(story)}")
        self.timeout_s = timeout_s
        self.story = story
        self.what = what
        self.retry_after_s = retry_after_s


class LocalError(MeshError):
    """The caller's fault. Raised before anything was changed."""


class InvalidValueError(LocalError, ValueError):
    """A value that cannot be kept, ordered or replicated. State unchanged."""


class InvalidFieldError(InvalidValueError):
    """A field of a limit, a rule or a request that cannot be. State unchanged.

    Args:
        field: its name.
        problem: what is wrong with it, as a sentence that begins with the field goes on.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class InvalidTypeError(LocalError, TypeError):
    """A value of a type that cannot be kept or replicated. State unchanged."""


class MemberInReachError(LocalError, RuntimeError):
    """A member that is neither Down nor Leaving cannot be forgotten. State unchanged.

    Args:
        name: the member.
        status: what it is.
    """

    def __init__(self, name: str, *, status: str) -> None:
        super().__init__(f"the member {name!r} is {status}, and neither Down nor Leaving")
        self.name = name
        self.status = status


class ConfigError(LocalError, ValueError):
    """A setting that cannot hold. Nothing was started."""


class ForeignClockError(LocalError, ValueError):
    """A `now` that is no reading of the clock that came before. State unchanged.

    Args:
        now: what was given.
        clock_s: where the clock stands, by the readings before.
        hint: what the reading looks like, for the message; may be empty.
    """

    def __init__(self, now: float, *, clock_s: float, hint: str = "") -> None:
        ahead_s = now - clock_s
        where = f"{abs(ahead_s):,.0f} s {'ahead of' if ahead_s > 0 else 'behind'}"
        detail = f"now={now!r} is {where} the clock that was given before ({clock_s!r})"
        super().__init__(f"{detail}: pass readings of one monotonic clock, in seconds{hint}")
        self.now = now
        self.clock_s = clock_s


class LimitError(LocalError, ValueError):
    """The call would cross a limit. State unchanged.

    Args:
        what: the name of the limit.
        size: what the call would have needed.
        limit: what is allowed.
    """

    def __init__(self, what: str, *, size: int, limit: int) -> None:
        super().__init__(f"{what}: {size:,} is over the limit of {limit:,}")
        self.what = what
        self.size = size
        self.limit = limit


class StateError(LocalError, RuntimeError):
    """A call that does not fit the state of the object. State unchanged."""


class ClockAheadError(StateError):
    """A write while this node's clock is too far ahead of those of a majority. State unchanged.

    The others would not see it for so long, and then it would replace what is newer.

    Args:
        ahead_s: how far ahead of them the write would be stamped, at least.
        skew_max_s: how far it may be: `clock_skew_max_s`.
    """

    def __init__(self, *, ahead_s: float, skew_max_s: float) -> None:
        super().__init__(
            f"this node's clock is {ahead_s:.1f} s ahead of those of most members, and a write may "
            f"be {skew_max_s:g} s ahead: nothing can be written here until the clocks agree"
        )
        self.ahead_s = ahead_s
        self.skew_max_s = skew_max_s


class ThreadError(StateError):
    """A call from another thread than the node's. State unchanged; `MeshRuntime.call` hops."""


class NameConflictError(LocalError, RuntimeError):
    """The node's name is already taken by a live node. The node has not joined.

    Args:
        name: the name that both claim.
        address: where the live node of that name is reached.
    """

    def __init__(self, name: str, *, address: str) -> None:
        super().__init__(f"the name {name!r} is already taken by a live node at {address}")
        self.name = name
        self.address = address


class DocumentTypeError(LocalError, TypeError):
    """A document of that name exists with another type. State unchanged."""

    def __init__(self, document: str, *, held: str, wanted: str) -> None:
        super().__init__(f"document {document!r} is of type {held}, not of type {wanted}")
        self.document = document
        self.held = held
        self.wanted = wanted


class UnknownKeyError(LocalError, KeyError):
    """Nothing is kept under that name. State unchanged."""

    def __init__(self, what: str, key: object) -> None:
        super().__init__(f"no {what} {key!r}")
        self.what = what
        self.key = key

    def __str__(self) -> str:
        return str(self.args[0])


class EmptyRingError(LocalError, LookupError):
    """A ring without nodes has no owners. State unchanged."""


class InsufficientRights(LocalError, ValueError):  # noqa: N818 - the literature's name
    """A bounded counter cannot spend or transfer what it does not hold. State unchanged."""

    def __init__(self, *, wanted: int, held: int) -> None:
        super().__init__(f"wanted to use {wanted} rights and holds {held}")
        self.wanted = wanted
        self.held = held


class RemoteError(MeshError):
    """A peer's fault. What it sent was dropped; state unchanged."""

    reason: RejectReason = RejectReason.MALFORMED


class DecodeError(RemoteError):
    """Bytes that are not what they claim to be. State unchanged."""

    def __init__(self, detail: str, *, reason: RejectReason = RejectReason.MALFORMED) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason


class VersionMismatch(RemoteError):  # noqa: N818 - reads as what happened
    """A wire or format version this node does not speak. State unchanged.

    Args:
        what: what is of another version.
        ours: the newest that this node speaks.
        theirs: what came.
        peer_formats: the oldest and the newest format that the peer says it speaks; None where
            it says nothing of that, or cannot be believed.
    """

    reason = RejectReason.VERSION

    def __init__(
        self,
        what: str,
        *,
        ours: int,
        theirs: int,
        peer_formats: tuple[int, int] | None = None,
    ) -> None:
        said = f"{what}: this node speaks version {ours}, the peer sent {theirs}"
        if peer_formats is not None:
            said += f", and speaks {peer_formats[0]} to {peer_formats[1]}"
        super().__init__(said)
        self.ours = ours
        self.theirs = theirs
        self.peer_formats = peer_formats


class ClusterMismatch(RemoteError):  # noqa: N818 - reads as what happened
    """A frame of another cluster. State unchanged."""

    reason = RejectReason.CLUSTER

    def __init__(self, *, ours: str, theirs: str) -> None:
        super().__init__(f"the frame is of cluster {theirs!r}, this is {ours!r}")
        self.ours = ours
        self.theirs = theirs


class LimitExceeded(RemoteError):  # noqa: N818 - reads as what happened
    """A peer sent more than a limit allows. State unchanged."""

    reason = RejectReason.LIMIT

    def __init__(self, what: str, *, size: int, limit: int) -> None:
        super().__init__(f"{what}: {size:,} is over the limit of {limit:,}")
        self.what = what
        self.size = size
        self.limit = limit


class ClockSkewError(RemoteError):
    """A timestamp too far ahead of this node's clock. State unchanged."""

    reason = RejectReason.CLOCK

    def __init__(self, *, ahead_s: float, skew_max_s: float) -> None:
        super().__init__(f"{ahead_s:.3f} s ahead of this clock, {skew_max_s:.3f} s are allowed")
        self.ahead_s = ahead_s
        self.skew_max_s = skew_max_s


class InternalError(MeshError):
    """A broken invariant of this package. Please report it, with the state it shows."""


class BrokenInvariant(InternalError):  # noqa: N818 - what was found
    """A part of a node is in a state that it can never be in.

    Args:
        part: which one.
        what: what does not hold.
        state: all that it keeps, by name. The message shows the beginning of it.
    """

    def __init__(self, part: str, what: str, *, state: Mapping[str, object]) -> None:
        dump = repr(dict(state))
        if len(dump) > _DUMP_MAX:
            dump = f"{dump[:_DUMP_MAX]}..."
        super().__init__(f"{part}: {what}; {dump}")
        self.part = part
        self.what = what
        self.state = state


def check_several(what: str, values: object) -> None:
    """Refuse what is not several: one text, say, would be taken for its characters. O(1).

    Args:
        what: what the values are, for the message; the value itself may be a secret.
        values: what a caller gave.

    Raises:
        InvalidTypeError: it is a text or bytes, or cannot be iterated over.
    """
    if isinstance(values, str | bytes | bytearray):
        kind = type(values).__name__
        raise InvalidTypeError(f"{what} must be several, such as a list, and not one {kind}")
    if not isinstance(values, Iterable):
        kind = "None" if values is None else type(values).__name__
        raise InvalidTypeError(f"{what} must be several, such as a list, not {kind}")
