"""What comes back, as records; what a newer server adds is passed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import attrs
from attrs import field, frozen

from meshlib_server.client.errors import UnreachableError

__all__ = [
    "Admission",
    "ClusterStatus",
    "GlobalLimit",
    "LimitRuleView",
    "LimitUsage",
    "MemberView",
    "NodeHealth",
    "PolicyView",
    "ReservedUnits",
    "RoutedTo",
    "ServerEvent",
    "SlotLease",
    "StoreCounts",
    "UsedLimit",
    "WorkerView",
    "read_answer",
    "read_answers",
]

Record = TypeVar("Record")


def read_answer(kind: type[Record], tree: Any) -> Record:
    """Make a record of a decoded answer.

    Raises:
        UnreachableError: it is not such an answer, so what answered is no such server.
    """
    known = attrs.fields_dict(kind)  # type: ignore[arg-type]
    try:
        return kind(**{name: value for name, value in tree.items() if name in known})
    except (TypeError, AttributeError):
        raise UnreachableError(
            f"what answered is no server of this kind: {kind.__name__}"
        ) from None


def read_answers(kind: type[Record], tree: Any) -> tuple[Record, ...]:
    """Make records of a list, likewise."""
    if not isinstance(tree, list):
        raise UnreachableError(f"what answered is no server of this kind: {kind.__name__}")
    return tuple(read_answer(kind, each) for each in tree)


@frozen(kw_only=True)
class MemberView:
    """A member, as the node that was asked sees it.

    Args:
        name: the member.
        address: where it is reached.
        status: `Alive`, `Suspected`, `Down` or `Leaving`.
        version: counts the changes of it.
    """

    name: str
    address: str
    status: str
    version: int


@frozen(kw_only=True)
class StoreCounts:
    """How much is in each store."""

    membership_count: int
    worker_count: int
    policy_count: int
    app_count: int


def _members(trees: Any) -> tuple[MemberView, ...]:
    return read_answers(MemberView, trees)


def _counts(tree: Any) -> StoreCounts:
    return read_answer(StoreCounts, tree)


@frozen(kw_only=True)
class ClusterStatus:
    """The members, and how much is in the stores."""

    node_name: str
    node_count: int
    nodes: tuple[MemberView, ...] = field(converter=_members)
    stores: StoreCounts = field(converter=_counts)


@frozen(kw_only=True)
class NodeHealth:
    """How the cluster looks from a node.

    Args:
        status: `healthy`, `degraded` or `partitioned`.
        node_name: the node.
        cluster_size: members in reach.
        stores_healthy: whether every store can be read and agrees with its peers.
        state: what the node is doing.
        problems: what is wrong, one line each.
        formats: the newest format that all speak, and the newest that this node does.
        progress: while it fills, how much of how much it has, and in which unit; else None.
    """

    status: str
    node_name: str
    cluster_size: int
    stores_healthy: bool
    state: str
    problems: tuple[str, ...] = field(converter=tuple)
    formats: Mapping[str, int] = field(factory=dict)
    progress: Mapping[str, Any] | None = None


@frozen(kw_only=True)
class WorkerView:
    """A worker, as it was written; `ttl_s` is None when it stays for ever."""

    worker_id: str
    model_id: str
    url: str
    health: bool
    load: float
    version: int
    ttl_s: float | None = None


@frozen(kw_only=True)
class PolicyView:
    """The policy of a model; `default_of` names the node whose file says it, if one does."""

    model_id: str
    policy_type: str
    config: str
    version: int
    default_of: str | None = None


@frozen(kw_only=True)
class GlobalLimit:
    """The global limit, in units a second; `default_of` as with policies."""

    limit_per_second: int
    default_of: str | None = None


@frozen(kw_only=True)
class UsedLimit:
    """How much is used of one limit of a rule; `policy` is the limit, such as `100/minute`."""

    policy: str
    limit: int
    used_count: int
    remaining: int
    reset_after_s: float


def _used_limits(rows: Any) -> tuple[UsedLimit, ...]:
    return tuple(row if isinstance(row, UsedLimit) else read_answer(UsedLimit, row) for row in rows)


@frozen(kw_only=True)
class LimitUsage:
    """How much of a limit is used; `remaining` is -1 when there is no limit.

    Of a key under a rule it is the limit of which the least is left, and `limits` are all of them.
    """

    limit_per_second: int
    current_count: int
    remaining: int
    limits: tuple[UsedLimit, ...] = field(default=(), converter=_used_limits)


@frozen(kw_only=True)
class Admission:
    """Whether a request may pass, and when to come back if not; as `meshlib.Decision`."""

    allowed: bool
    limit: int
    remaining: int
    retry_after_s: float
    reset_after_s: float = 0.0
    policy: str = ""
    confirmed: bool = False


@frozen(kw_only=True)
class ReservedUnits(Admission):
    """Whether an estimate was counted; `reservation_id` is empty when it was not."""

    reservation_id: str


@frozen(kw_only=True)
class SlotLease(Admission):
    """Whether there was a slot, and for how long it is held; `slot_id` is empty without one."""

    slot_id: str
    lease_s: float


@frozen(kw_only=True)
class LimitRuleView:
    """Limits for the keys of a pattern; `default_of` as with policies."""

    name: str
    pattern: str
    limits: tuple[str, ...] = field(converter=tuple)
    default_of: str | None = None


@frozen(kw_only=True)
class RoutedTo:
    """The worker that was chosen, and why.

    Args:
        worker_id: the worker.
        url: where it is reached.
        matched: how many characters of the text it holds.
        reason: why it was chosen.
        request_id: by which the request is said to have its first token, and to have ended.
    """

    worker_id: str
    url: str
    matched: int
    reason: str
    request_id: str = ""


@frozen(kw_only=True)
class ServerEvent:
    """Something that happened to the node.

    Args:
        kind: what, such as `MemberDown`; `overview` for what is so now.
        data: its fields.
    """

    kind: str
    data: Mapping[str, Any]
