"""What a checker needs to know of a node and a user does not, by `MeshNode.diagnostics`.

The simulator reads no private part of a node, and changes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from meshlib.codec import unpack
from meshlib.errors import RemoteError, UnknownKeyError
from meshlib.gossip import DIALECTS
from meshlib.gossip.messages.frames import PREFIX_BYTES, FrameHeader, decode_frame
from meshlib.gossip.messages.kinds import ExchangeEqual, ExchangeRequest, VectorExchange
from meshlib.identity import ActorId
from meshlib.limits import FORMATS, FRAME_CLOSED_BYTES
from meshlib.membership import MemberStatus
from meshlib.replication.vector import vector_hash

__all__ = [
    "Told",
    "covered",
    "covered_hash",
    "dialled",
    "entry_count",
    "find_state",
    "forgotten",
    "gap_actors",
    "gap_bytes",
    "gap_count",
    "has_late_writes",
    "has_quorum",
    "is_receiving_state",
    "is_to_be_written_again",
    "left_out",
    "leftovers",
    "log_bytes",
    "map_entries",
    "member_actors",
    "message_count",
    "neighbour_actors",
    "packet_bytes_max",
    "read_frame",
    "stored_at_ms",
    "tells_ready",
    "timer_count",
    "tombstone_count",
]


def log_bytes(node: Any) -> int:
    """Return what a node's log counts for."""
    return int(node.diagnostics()["log"]["bytes"])


def gap_bytes(node: Any) -> int:
    """Return what waits behind gaps, in bytes."""
    return int(node.diagnostics()["gap_buffer"]["bytes"])


def gap_count(node: Any) -> int:
    """Return how many entries wait behind gaps."""
    return int(node.diagnostics()["gap_buffer"]["entry_count"])


def dialled(node: Any) -> set[str]:
    """Return the addresses that a node dials for ever: Down members', and seeds' out of reach."""
    reached = {member.address for member in node.members() if member.is_reachable}
    down = {member.address for member in node.members() if member.status is MemberStatus.DOWN}
    return (down | set(node.diagnostics()["dialler"]["seeds"])) - reached


def member_actors(node: Any) -> set[ActorId]:
    """Return the writers that a node's table of members names, those out of reach included."""
    return {record.actor for record in node.diagnostics()["members"]["records"]}


def covered(node: Any) -> dict[Any, int]:
    """Return what a node has absorbed of each writer, those it has forgotten included."""
    vector = node.diagnostics()["vector"]
    return {**vector["forgotten"], **vector["numbers"]}


def forgotten(node: Any) -> set[Any]:
    """Return the writers that a node has forgotten."""
    return set(node.diagnostics()["vector"]["forgotten"])


def covered_hash(node: Any) -> int:
    """Return the hash of what `covered` tells; equal for equal numbers of equal writers."""
    return vector_hash(covered(node))


def is_receiving_state(node: Any) -> bool:
    """Tell whether a state transfer is coming in."""
    return node.diagnostics()["state_transfer"]["incoming"] is not None


def neighbour_actors(node: Any) -> set[Any] | None:
    """Return the writers of a node's neighbours; None in a full mesh."""
    view = node.diagnostics()["view"]
    if view["is_full_mesh"]:
        return None
    return {member.actor for member in node.members() if member.name in view["neighbours"]}


def gap_actors(node: Any) -> set[Any]:
    """Return the writers whose entries wait behind gaps."""
    return set(node.diagnostics()["gap_buffer"]["ranges"])


def packet_bytes_max(node: Any) -> int:
    """Return the size at which a node closes a frame."""
    return min(int(node.config.gossip.packet_bytes_max), FRAME_CLOSED_BYTES)


@frozen(slots=True)
class Told:
    """What a frame says of its sender.

    Args:
        header: its header.
        vectors: the vectors in it that are whole, or whole but for what both have.
        hashes: the hashes of vectors in it.
    """

    header: FrameHeader
    vectors: tuple[Mapping[ActorId, int], ...]
    hashes: tuple[int, ...]


def read_frame(data: bytes, *, cluster: str) -> Told | None:
    """Return what a frame says of its sender; None when it is none of this cluster."""
    try:
        # Whoever it is for: of each format that a node of the run may speak.
        frame = decode_frame(data, cluster=cluster, formats=(FORMATS[0], max(DIALECTS)))
    except RemoteError:  # whoever gets it refuses it
        return None
    vectors = tuple(
        each.vector
        for each in frame.messages
        if isinstance(each, VectorExchange) and not each.is_partial
    )
    hashes = tuple(
        each.vector_hash
        for each in frame.messages
        if isinstance(each, ExchangeEqual | ExchangeRequest)
    )
    return Told(frame.header, vectors, hashes)


def message_count(frame: bytes) -> int:
    """Return how many messages a frame holds."""
    return len(unpack(frame[PREFIX_BYTES:])[-1])


def tells_ready(node: Any) -> bool:
    """Tell whether peers may take a node's vector for what they wait for."""
    return bool(node.diagnostics()["beginning"]["tells_ready"])


def stored_at_ms(node: Any) -> int:
    """Return of when the state is that a node began with; 0 when it began with nothing."""
    return int(node.diagnostics()["beginning"]["stored_at_ms"])


def has_quorum(node: Any) -> bool:
    """Tell whether a node says that it has a majority."""
    return bool(node.diagnostics()["electorate"]["has_quorum"])


def left_out(node: Any) -> Mapping[str, int]:
    """Return whom a node does not count although it knows of them, each in which incarnation."""
    told: Mapping[str, int] = node.diagnostics()["electorate"]["left_out"]
    return told


def timer_count(node: Any) -> int:
    """Return how many timers are set."""
    return int(node.diagnostics()["timers"]["count"])


def is_to_be_written_again(node: Any, document: str, key: Any) -> bool:
    """Tell whether a write came late and waits for the rest of them: rule R4."""
    return key in node.diagnostics()["late_writes"]["waiting"].get(document, ())


def has_late_writes(node: Any) -> bool:
    """Tell whether any write waits so."""
    return bool(node.diagnostics()["late_writes"]["waiting"])


def map_entries(state: Any) -> dict[Any, Any]:
    """Return the entries of an `LWWMap`, tombstones included."""
    return dict(state.entries())


def entry_count(state: Any) -> int:
    """Return how many entries an `LWWMap` holds, tombstones included."""
    return len(state) + int(state.tombstone_count)


def find_state(node: Any, document: str) -> Any:
    """Return the state that readers of a document are given; None when it is not open."""
    try:
        return node.replica.get(document)
    except UnknownKeyError:
        return None


def tombstone_count(node: Any) -> int:
    """Return how many tombstones a node's maps hold."""
    replica = node.replica
    states = (replica.get(document) for document in replica.documents())
    return sum(getattr(state, "tombstone_count", 0) for state in states)


def leftovers(node: Any) -> dict[str, int]:
    """Return what a node still has under way, by name; all zero once it has come to rest."""
    shown = node.diagnostics()
    detector, spread = shown["failure_detector"], shown["dissemination"]
    transfer = shown["state_transfer"]
    return {
        "gap requests": len(spread["gaps"]),
        "peers behind": len(spread["behind"]),
        "pushes to repeat": len(spread["pushed"]) + len(spread["overdue"]),
        "acknowledgements owed": len(spread["owed"]),
        "suspicions": len(detector["suspicions"]),
        "relayed probes": len(detector["relays"]),
        "claims": len(shown["claims"]["claims"]),
        "news to repeat": len(shown["news"]["broadcasts"]),
        "state transfers in": int(transfer["incoming"] is not None),
        "state transfers out": len(transfer["outgoing"]),
        "tombstones": tombstone_count(node),
        "bytes of log": log_bytes(node),
    }
