"""The families of one scrape, read off the node and what runs beside it.

Rule: a label has a bounded number of values: states and reasons are words of fixed lists, peers are
the neighbours of this node, and of everything else the first `SHOWN_MAX` are shown.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

from attrs import define, field

from meshlib import MeshNode, MeshRuntime, NodeState, SnapshotFile, __version__
from meshlib.aio import BridgedTransport
from meshlib.crdt import LWWMap
from meshlib.errors import LocalError, RemoteError
from meshlib.membership import MemberStatus
from meshlib_server.http.gate import Gate
from meshlib_server.lag import LoopLag
from meshlib_server.logs import LineWriter
from meshlib_server.metrics import names
from meshlib_server.metrics.names import Kind, Name
from meshlib_server.metrics.requests import Duration, RequestCounters, WorkerHits

__all__ = ["SHOWN_MAX", "Family", "Sources", "behind_by", "read_families"]

SHOWN_MAX: Final = 100
"""Documents, models and workers that a scrape shows of each."""

_KEYS_MAX: Final = 20
"""Rate-limit keys that are shown: of each the owners are asked from then on."""

_PEERS_MAX: Final = 64
"""Neighbours whose lag is measured: it takes a look at each writer for each of them."""


@define
class Family:
    """Numbers of one name.

    Args:
        name: without the prefix.
        text: what they are, in one line.
        kind: what they do.
        labels: the names of the labels.
        samples: a number by the values of the labels.
        durations: likewise, of a histogram.
    """

    name: str
    text: str
    kind: Kind
    labels: tuple[str, ...] = ()
    samples: dict[tuple[str, ...], float] = field(factory=dict)
    durations: Mapping[tuple[str, ...], Duration] = field(factory=dict)


@define(kw_only=True)
class Sources:
    """What runs in the process and counts, beside the node itself.

    Args:
        lag: how long the event loop is held.
        requests: what was asked for over HTTP.
        events: what happened to the node, by the name of the event and its reason, if it has one.
        hits: what workers had cached of the prompts that this node routed to them.
        tokens: what workers said that requests have used, by model and kind.
        gate: the connections of callers; None without.
        snapshots: where the state is kept; None: nowhere.
        log: what writes the log; None without.
    """

    lag: LoopLag = field(factory=LoopLag)
    requests: RequestCounters = field(factory=RequestCounters)
    events: dict[tuple[str, str], int] = field(factory=dict)
    hits: WorkerHits = field(factory=WorkerHits)
    tokens: dict[tuple[str, str], int] = field(factory=dict)
    gate: Gate | None = None
    snapshots: SnapshotFile | None = None
    log: LineWriter | None = None

    def note_event(self, event: object) -> None:
        """Count what happened to the node. O(1)."""
        reason = getattr(event, "reason", "")
        key = (type(event).__name__, str(reason) if isinstance(reason, Enum) else "")
        self.events[key] = self.events.get(key, 0) + 1

    def note_usage(self, model_id: str, *, prompt_tokens: int, completion_tokens: int) -> None:
        """Count the tokens of one request. O(1).

        Args:
            model_id: of its worker; beyond the first `SHOWN_MAX` models they are one, `other`.
            prompt_tokens: that it asked with.
            completion_tokens: that it was answered with.
        """
        if (model_id, "prompt") not in self.tokens and len(self.tokens) >= 2 * SHOWN_MAX:
            model_id = "other"
        for kind, count in (("prompt", prompt_tokens), ("completion", completion_tokens)):
            self.tokens[model_id, kind] = self.tokens.get((model_id, kind), 0) + count


def read_families(mesh: MeshRuntime | None, sources: Sources) -> list[Family]:
    """Read everything once. O(members, neighbours x writers, what is shown of the rest).

    Args:
        mesh: the running node; None when the mesh is not enabled, and then it has no numbers.
        sources: the rest.
    """
    families = [_build_info(), *_counted(sources.lag, names.EVENT_LOOP)]
    families += _of_requests(sources)
    if sources.gate is not None:
        families += _counted(sources.gate.counters, names.GATE)
        families.append(_gauge("http_connections_open", "Callers connected.", len(sources.gate)))
    if sources.snapshots is not None:
        families += _counted(sources.snapshots.counters, names.SNAPSHOTS)
    if mesh is not None:
        node = mesh.node
        families += _counted(node.counters, names.NODE)
        families += _counted(mesh.counters, names.DRIVER)
        families += _counted(mesh.transport.counters, names.TRANSPORT)
        if isinstance(mesh.transport, BridgedTransport):
            families += _counted(mesh.transport.bridging, names.BRIDGING)
        families += _of_members(node)
        families += _of_clocks(node)
        families += _of_replication(node)
        families += _of_stores(node)
        families += _of_limits(mesh)
    return families


def _gauge(name: str, text: str, value: float) -> Family:
    return Family(name, text, Kind.GAUGE, samples={(): float(value)})


def _by_label(
    name: str, text: str, label: str, values: Iterable[tuple[str, float]], kind: Kind = Kind.GAUGE
) -> Family:
    samples: dict[tuple[str, ...], float] = {
        (key,): float(value) for key, value in itertools.islice(values, SHOWN_MAX)
    }
    return Family(name, text, kind, (label,), samples)


def _build_info() -> Family:
    return _by_label("build_info", "1, by the version.", "version", [(__version__, 1.0)])


def _counted(record: Any, meanings: Mapping[str, Name]) -> list[Family]:
    families: dict[str, Family] = {}
    for attribute, name in meanings.items():
        family = families.get(name.metric)
        if family is None:
            family = Family(name.metric, name.text, name.kind, tuple(name.labels))
            families[name.metric] = family
        family.samples[tuple(name.labels.values())] = float(getattr(record, attribute))
    return list(families.values())


def _of_requests(sources: Sources) -> list[Family]:
    requests = sources.requests
    answers: dict[tuple[str, ...], float] = {
        (method, path, str(status)): float(count)
        for (method, path, status), count in requests.answers.items()
    }
    outcomes: dict[tuple[str, ...], float] = {
        key: float(count) for key, count in requests.outcomes.items()
    }
    events: dict[tuple[str, ...], float] = {
        key: float(count) for key, count in sources.events.items()
    }
    durations: dict[tuple[str, ...], Duration] = {
        (path,): duration for path, duration in requests.durations.items()
    }
    return [
        Family(
            "http_requests", "Requests answered.", Kind.COUNTER, ("method", "path", "status"),
            answers,
        ),
        Family(
            "http_request_duration_seconds", "How long answers took.", Kind.HISTOGRAM, ("path",),
            durations=durations,
        ),
        Family(
            "decisions", "What acquire and route decided.", Kind.COUNTER, ("path", "outcome"),
            outcomes,
        ),
        Family(
            "usage_tokens", "What requests have used, as workers said.", Kind.COUNTER,
            ("model", "kind"), {key: float(count) for key, count in sources.tokens.items()},
        ),
        Family(
            "events", "What happened to the node.", Kind.COUNTER, ("event", "reason"), events
        ),
        _gauge("http_requests_in_progress", "Requests being answered.", requests.in_progress),
        Family(
            "log_lines_dropped", "Lines that nobody took.", Kind.COUNTER,
            samples={(): float(sources.log.dropped_count if sources.log else 0)},
        ),
    ]  # fmt: skip


def _of_members(node: MeshNode) -> list[Family]:
    statuses = dict.fromkeys((str(status) for status in MemberStatus), 0)
    for member in node.members():
        statuses[str(member.status)] += 1
    states = {str(state): float(state is node.state) for state in NodeState}
    shown = node.diagnostics()
    detector, local = shown["failure_detector"], shown["local_health"]
    outbox, news = shown["outbox"], shown["news"]
    return [
        _by_label("members", "Members, by how they look from here.", "state", statuses.items()),
        _by_label("state", "1 for what the node is doing.", "state", states.items()),
        _gauge("ready", "1 while the node is ready.", node.is_ready),
        _gauge("problems", "What is wrong, as the health tells it.", len(node.health().problems)),
        _gauge("format_spoken", "The newest format that all speak.", node.format_spoken),
        _gauge("format_newest", "The newest format that this node speaks.", node.config.formats[1]),
        _gauge("health_score", "0: well; more: this node is slow itself.", local["score"]),
        _gauge(
            "probe_timeout_seconds", "How long a probe may take.", detector["probe_timeout_s"]
        ),
        _gauge("members_suspected", "Suspicions that run here.", len(detector["suspicions"])),
        _gauge(
            "broadcast_queue_length", "News of members to be told.", len(news["broadcasts"])
        ),
        _gauge("outbox_bytes", "Messages to be sent.", sum(outbox["bytes"].values())),
        Family(
            "outbox_dropped", "Messages that found no room.", Kind.COUNTER,
            samples={(): float(outbox["dropped_count"])},
        ),
    ]  # fmt: skip


def behind_by(node: MeshNode, peers: Iterable[str]) -> dict[str, int]:
    """Return how many writes, of those that are here, each peer has not said it has.

    A peer says so once an exchange, so it is at most that old. O(peers x writers).

    Args:
        node: the node.
        peers: names of members; one that was never heard is left out.
    """
    shown = node.diagnostics()
    own: Mapping[Any, int] = shown["replica"]["numbers"]
    heard = shown["stability"]["peers"]
    behind = {}
    for name in itertools.islice(peers, _PEERS_MAX):
        if name in heard:
            latest = heard[name].latest
            behind[name] = sum(
                max(0, number - latest.get(actor, 0)) for actor, number in own.items()
            )
    return behind


def _of_clocks(node: MeshNode) -> list[Family]:
    offsets = [(each.name, each.offset_s) for each in node.clock_offsets()]
    return [
        _by_label(
            "clock_skew_seconds", "How far a member's clock is ahead.", "peer", sorted(offsets)
        )
    ]


def _of_replication(node: MeshNode) -> list[Family]:
    shown = node.diagnostics()
    log, gaps = shown["log"], shown["gap_buffer"]
    sizes: Mapping[str, int] = log["document_bytes"]
    return [
        _gauge("log_bytes", "Entries kept for those that lack them.", log["bytes"]),
        _by_label(
            "state_bytes", "The same, by the document.", "doc", sorted(sizes.items())
        ),
        _gauge("gap_buffer_bytes", "Entries that wait for earlier ones.", gaps["bytes"]),
        _gauge("gap_buffer_entries", "How many these are.", gaps["entry_count"]),
        _gauge("writers", "Writers that are known.", len(shown["replica"]["numbers"])),
        _gauge("timers", "Timers that are set.", shown["timers"]["count"]),
        _by_label(
            "peer_behind_entries", "Writes that are here and that a neighbour lacks.", "peer",
            sorted(behind_by(node, shown["view"]["neighbours"]).items()),
        ),
    ]  # fmt: skip


def _of_stores(node: MeshNode) -> list[Family]:
    sync = node.sync
    workers = sync.get_all_worker_states()
    healthy = sum(worker.health for worker in workers)
    models = sync.trees.models()
    counts = [
        ("members", len(node.members())),
        ("workers", len(workers)),
        ("policies", len(sync.policies)),
        ("app", len(sync.app)),
    ]
    by_health = [("true", healthy), ("false", len(workers) - healthy)]
    return [
        _by_label("store_entries", "What is in each store.", "store", counts),
        _by_label(
            "tombstones", "Removals that are kept until every member knows of them.", "store",
            _tombstones(node),
        ),
        _by_label("workers", "Workers, by whether they are healthy.", "healthy", by_health),
        _by_label(
            "worker_load", "The load of a worker, as it was written.", "worker",
            ((worker.worker_id, worker.load) for worker in workers),
        ),
        _by_label(
            "worker_requests_in_flight", "What all routers have under way at a worker.", "worker",
            ((worker.worker_id, sync.load.request_count(worker.worker_id)) for worker in workers),
        ),
        _by_label(
            "worker_decoded_tokens", "What requests under way at a worker have decoded, as told.",
            "worker",
            ((worker.worker_id, sync.load.decoded_tokens(worker.worker_id)) for worker in workers),
        ),
        _by_label(
            "tree_entries", "Prefixes in a model's tree.", "model",
            ((model, sync.trees.entry_count(model)) for model in models),
        ),
        _by_label(
            "tree_characters", "Characters in a model's tree.", "model",
            ((model, sync.trees.characters(model)) for model in models),
        ),
    ]  # fmt: skip


def _tombstones(node: MeshNode) -> list[tuple[str, float]]:
    """Return how many removals each document of maps keeps."""
    counts = []
    for name in sorted(node.replica.documents()):
        document = node.replica.get(name)
        if isinstance(document, LWWMap):
            counts.append((name, float(document.tombstone_count)))
    return counts


def _of_limits(mesh: MeshRuntime) -> list[Family]:
    """Return each limit and what is used of it; one that cannot be read is a problem of health."""
    limits: list[tuple[str, float]] = []
    used: list[tuple[str, float]] = []
    for key in mesh.limits.keys()[:_KEYS_MAX]:
        try:
            stats = mesh.rate_limit_stats(key)
        except (LocalError, RemoteError):
            continue
        limits.append((key, stats.limit_per_second))
        used.append((key, stats.current_count))
    kept = mesh.node.limiter.diagnostics()
    owner = kept["owner"]
    return [
        _by_label("rate_limit", "The limit of a key for the whole cluster.", "key", limits),
        _by_label("rate_limit_used", "Units admitted in its current window.", "key", used),
        _gauge("rate_limit_keys", "Keys of limits that are kept here.", len(kept["tracked"])),
        _gauge("rate_limit_keys_owned", "Keys that others ask this node for.", len(owner["keys"])),
        _gauge(
            "rate_limit_questions_waiting",
            "Questions of others that wait for a majority.",
            len(owner["pending"]),
        ),
    ]
