"""What is so now, read off the node and bounded.

Rule: nothing in it is a secret: of what is configured there are names and counts, and no values.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any, Final

from meshlib import ConsistentHashRing, MeshNode, MeshRuntime
from meshlib.errors import LocalError, RemoteError
from meshlib_server.dashboard.views import read_views
from meshlib_server.metrics import Sources
from meshlib_server.metrics.readings import behind_by

__all__ = ["overview"]

_SHOWN_MAX: Final = 200
"""Members, workers, models and configuration keys that are shown of each."""

_KEYS_MAX: Final = 20
"""Rate-limit keys that are shown: of each the owners are asked from then on."""

_KEYS_LOOKED_AT_MAX: Final = 5_000
"""Of more keys nobody is told which are the busiest: to look at each would hold the event loop."""

_RING_MEMBERS_MAX: Final = 64
"""Of more members nobody could read it, and a ring of them takes long to make."""

_RING_POINTS: Final = 256
"""Keys whose owner is looked up to see how much of the ring each member has."""


def overview(mesh: MeshRuntime, sources: Sources) -> dict[str, Any]:
    """Return what a person wants to see of a node. O(members, what is shown of the rest).

    Args:
        mesh: the node.
        sources: what is counted beside it.
    """
    node = mesh.node
    health = node.health()
    shown = node.diagnostics()
    return {
        "node": {
            "name": node.name,
            "address": node.address,
            "cluster": node.config.cluster_name,
            "region": node.config.region,
            "zone": node.config.zone,
            "state": str(node.state),
            "is_ready": node.is_ready,
            "format_spoken": node.format_spoken,
            "format_newest": node.config.formats[1],
        },
        "health": {
            "status": str(health.status),
            "cluster_size": health.cluster_size,
            "problems": [
                {"text": text, "since_s": round(age_s, 1)}
                for text, age_s in zip(health.problems, health.ages_s, strict=True)
            ],
        },
        "members": _members(node),
        "unheard": read_views(mesh),
        "behind": behind_by(node, shown["view"]["neighbours"]),
        "workers": _workers(node, sources),
        "policies": _policies(node),
        "limits": _limits(mesh),
        "busiest": _busiest(mesh, len(node.limiter.diagnostics()["tracked"])),
        "ring": _ring(node),
        "config_keys": node.sync.config_keys()[:_SHOWN_MAX],
        "traffic": {
            "bytes_sent": node.counters.bytes_sent,
            "bytes_received": node.counters.bytes_received,
            "frames_sent": node.counters.frames_sent,
            "frames_received": node.counters.frames_received,
            "frames_rejected": node.counters.frames_rejected,
            "loop_held": sources.lag.held_count,
            "loop_late_s": round(mesh.counters.timer_late_s, 4),
            "requests_in_progress": sources.requests.in_progress,
            "admitted": sources.requests.outcomes_of("/rate-limit/acquire").get("admitted", 0),
            "refused": sources.requests.outcomes_of("/rate-limit/acquire").get("refused", 0),
        },
        "routing": sources.requests.outcomes_of("/route/{model_id}"),
    }


def _members(node: MeshNode) -> list[dict[str, Any]]:
    shown = node.diagnostics()
    since, now = shown["members"]["since"], shown["timers"]["now"]
    offsets = {each.name: each.offset_s for each in node.clock_offsets()}
    trips = node.round_trips_s()
    return [
        {
            "name": member.name,
            "address": member.address,
            "status": str(member.status),
            "incarnation": str(member.incarnation),  # it is over what a script's number holds
            "region": member.region,
            "zone": member.zone,
            "version": member.version,
            "clock_offset_s": offsets.get(member.name),
            "round_trip_s": trips.get(member.name),
            "since_s": round(max(0.0, now - since.get(member.name, now)), 1),
        }
        for member in node.members()[:_SHOWN_MAX]
    ]


def _workers(node: MeshNode, sources: Sources) -> list[dict[str, Any]]:
    load, hits = node.sync.load, sources.hits
    return [
        {
            "worker_id": worker.worker_id,
            "model_id": worker.model_id,
            "url": worker.url,
            "health": worker.health,
            "load": worker.load,
            "ttl_s": worker.ttl_s,
            "version": worker.version,
            "in_flight": load.request_count(worker.worker_id),
            "prefill_tokens": round(load.backlog(worker.worker_id, now=load.latest_s)),
            "hit_rate": hits.rate_of(worker.worker_id),
        }
        for worker in node.sync.get_all_worker_states()[:_SHOWN_MAX]
    ]


def _policies(node: MeshNode) -> list[dict[str, Any]]:
    sync = node.sync
    policies = {policy.model_id: policy for policy in sync.get_all_policy_states()}
    models = sorted({*policies, *sync.trees.models()})[:_SHOWN_MAX]
    return [
        {
            "model_id": model,
            "policy_type": policies[model].policy_type if model in policies else "",
            "version": policies[model].version if model in policies else 0,
            "tree_entries": sync.trees.entry_count(model),
            "tree_characters": sync.trees.characters(model),
        }
        for model in models
    ]


def _limits(mesh: MeshRuntime) -> list[dict[str, Any]]:
    """Return each limit and what is used of it; one that cannot be read is a problem of health."""
    limits = []
    for key in mesh.limits.keys()[:_KEYS_MAX]:
        try:
            stats = mesh.rate_limit_stats(key)
        except (LocalError, RemoteError):
            continue
        limits.append(
            {
                "key": key,
                "limit_per_second": stats.limit_per_second,
                "current_count": stats.current_count,
                "remaining": stats.remaining,
            }
        )
    return limits


def _busiest(mesh: MeshRuntime, key_count: int) -> list[dict[str, Any]]:
    """Return the keys of which this node has decided most; none where there are too many."""
    if key_count > _KEYS_LOOKED_AT_MAX:
        return []
    return [
        {
            "key": use.key,
            "mark": use.mark,
            "admitted_count": use.admitted_count,
            "refused_count": use.refused_count,
        }
        for use in mesh.busiest_keys(count=_KEYS_MAX)
    ]


def _ring(node: MeshNode) -> dict[str, float]:
    """Return how much of a hash ring each member in reach has; none where they are too many."""
    names = tuple(member.name for member in node.members() if member.is_reachable)
    return _parts_of(names) if len(names) <= _RING_MEMBERS_MAX else {}


@functools.lru_cache(maxsize=4)
def _parts_of(names: tuple[str, ...]) -> dict[str, float]:
    """Return the part of the ring that each of these has, from 0 to 1, by a sample."""
    ring = ConsistentHashRing(names)
    owners = Counter(ring.owner(f"sample-{number}") for number in range(_RING_POINTS))
    return {str(name): round(count / _RING_POINTS, 3) for name, count in sorted(owners.items())}
