"""The stores of the specification, each a view of one replicated map.

Rule: what a store keeps in the map, and how it is read back, is decided in this file. A value that
a peer wrote and that is no record is unreadable: it is left out of the answers and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from attrs import evolve

from meshlib.clock import Stamp
from meshlib.codec import encode_value
from meshlib.errors import InvalidTypeError
from meshlib.replication import WriteReceipt
from meshlib.state.defaults import POLICIES, Defaults
from meshlib.state.documents import Documents, RecordTable, stored_field
from meshlib.state.records import (
    PolicyState,
    WorkerState,
    check_flag,
    check_identifier,
    check_load,
    check_text,
    check_ttl,
)

__all__ = [
    "APP_DOCUMENT",
    "POLICIES_DOCUMENT",
    "WORKERS_DOCUMENT",
    "AppStore",
    "MemberView",
    "MembershipStore",
    "PolicyStore",
    "WorkerStore",
]

WORKERS_DOCUMENT: Final = "workers"
POLICIES_DOCUMENT: Final = "policies"
APP_DOCUMENT: Final = "app"


class WorkerStore:
    """The workers, by id.

    Args:
        documents: where they are kept, in `workers`.
    """

    __slots__ = ("_by_model", "_lapse_count", "_lapsed", "_seen", "_table")

    def __init__(self, documents: Documents) -> None:
        self._table = RecordTable(documents, WORKERS_DOCUMENT, what="worker", thaw=_thaw_worker)
        self._by_model: dict[str, tuple[WorkerState, ...]] = {}
        self._seen: tuple[int, int] | None = None
        self._lapsed: set[str] = set()
        self._lapse_count = 0

    def __len__(self) -> int:
        """Return the number of workers. O(1)."""
        return len(self._table.map)

    def get(self, worker_id: str) -> WorkerState | None:
        """Return a worker, or None. O(1)."""
        worker = self._table.get(worker_id)
        return worker if worker is None else self._seen_here(worker)

    def written_at(self, worker_id: str) -> Stamp | None:
        """Return when a worker was written last, or removed; None where nobody knows. O(1)."""
        entry = self._table.last_write(worker_id)
        return None if entry is None else entry.stamp

    @property
    def removed_count(self) -> int:
        """How many workers were removed of whom not all have heard yet."""
        return self._table.map.tombstone_count

    def removed_at(self, worker_id: str) -> Stamp | None:
        """Return when a worker was removed; None of one that is there, or never was. O(1).

        None, too, once all have heard of it and the removal is forgotten.
        """
        entry = self._table.last_write(worker_id)
        return None if entry is None or entry.payload is not None else entry.stamp

    def all(self) -> list[WorkerState]:
        """Return the workers, sorted by id. O(n log n)."""
        return [self._seen_here(worker) for worker in self._table.records()]

    def _seen_here(self, worker: WorkerState) -> WorkerState:
        return evolve(worker, health=False) if worker.worker_id in self._lapsed else worker

    def set_lapsed(self, worker_id: str, *, is_lapsed: bool) -> None:
        """Show a worker as not healthy on this node, or as written again; for its leases. O(1)."""
        if is_lapsed != (worker_id in self._lapsed):
            self._lapse_count += 1
            (self._lapsed.add if is_lapsed else self._lapsed.discard)(worker_id)

    def of_model(self, model_id: str) -> tuple[WorkerState, ...]:
        """Return the workers of a model, sorted by id. O(1) until a worker changes."""
        seen = (self._table.map.digest(), self._lapse_count)
        if seen != self._seen:
            by_model: dict[str, list[WorkerState]] = {}
            for worker in self.all():
                by_model.setdefault(worker.model_id, []).append(worker)
            self._by_model = {name: tuple(workers) for name, workers in by_model.items()}
            self._seen = seen
        return self._by_model.get(model_id, ())

    def put(
        self,
        worker_id: str,
        *,
        model_id: str,
        url: str,
        health: bool,
        load: float,
        ttl_s: float | None = None,
    ) -> WriteReceipt:
        """Write a worker; as `MeshSyncManager.sync_worker_state`."""
        value = _worker_value(
            worker_id, model_id=model_id, url=url, health=health, load=load, ttl_s=ttl_s
        )
        receipt = self._table.put(worker_id, value)
        self.set_lapsed(worker_id, is_lapsed=False)
        return receipt

    @staticmethod
    def check(
        worker_id: str,
        *,
        model_id: str,
        url: str,
        health: bool,
        load: float,
        ttl_s: float | None = None,
    ) -> None:
        """Raise what `put` would raise of its arguments; change nothing. O(size)."""
        encode_value(
            _worker_value(
                worker_id, model_id=model_id, url=url, health=health, load=load, ttl_s=ttl_s
            )
        )

    def remove(self, worker_id: str) -> WriteReceipt:
        """Remove a worker.

        Raises:
            UnknownKeyError: there is none of that id. State unchanged.
        """
        receipt = self._table.remove(check_identifier("worker_id", worker_id))
        self.set_lapsed(worker_id, is_lapsed=False)
        return receipt

    def unreadable(self) -> list[str]:
        """Return the keys whose values are no workers. O(changes since the last call)."""
        return self._table.unreadable()

    def note_changes(self, keys: Iterable[Any] | None) -> None:
        """Take note that keys have changed by what peers sent; None for all of them."""
        self._table.note_changes(keys)


def _worker_value(
    worker_id: str, *, model_id: str, url: str, health: bool, load: float, ttl_s: float | None
) -> dict[str, Any]:
    """Return what is stored of a worker, or raise what is wrong with an argument."""
    check_identifier("worker_id", worker_id)
    value: dict[str, Any] = {
        "model_id": check_identifier("model_id", model_id),
        "url": check_text("url", url),
        "health": check_flag("health", health),
        "load": check_load(load),
    }
    ttl_s = check_ttl(ttl_s)
    if ttl_s is not None:
        value["ttl_s"] = ttl_s
    return value


def _thaw_worker(key: str, value: Any, version: int) -> WorkerState:
    return WorkerState(
        worker_id=key,
        model_id=check_identifier("model_id", stored_field(value, "model_id")),
        url=check_text("url", stored_field(value, "url")),
        health=check_flag("health", stored_field(value, "health")),
        load=check_load(stored_field(value, "load")),
        version=version,
        ttl_s=check_ttl(value.get("ttl_s")),
    )


class PolicyStore:
    """The policies, by model. A model's tree is the document `tree:{model_id}` beside it.

    Args:
        documents: where they are kept, in `policies`.
        defaults: what the nodes' files say of models without one; by default nothing.
    """

    __slots__ = ("_by_default", "_defaults", "_defaults_seen", "_table")

    def __init__(self, documents: Documents, *, defaults: Defaults | None = None) -> None:
        self._defaults = defaults if defaults is not None else Defaults(documents)
        self._by_default: dict[str, PolicyState] = {}
        self._defaults_seen = -1
        self._table = RecordTable(documents, POLICIES_DOCUMENT, what="policy", thaw=_thaw_policy)

    def __len__(self) -> int:
        """Return the number of policies, defaults included; trees are not counted. O(defaults)."""
        written = self._table.map
        return len(written) + sum(model not in written for model in self._of_files())

    def get(self, model_id: str) -> PolicyState | None:
        """Return a model's policy, else what is its default, or None.

        O(1), and O(defaults) once after these have changed.
        """
        if model_id in self._table.map:  # whether or not it can be read: it was written
            return self._table.get(model_id)
        if self._defaults_seen != self._defaults.revision:
            self._defaults_seen = self._defaults.revision
            self._by_default = {model: self._default(model) for model in self._of_files()}
        return self._by_default.get(model_id)

    def _default(self, model_id: str) -> PolicyState:
        default = self._defaults.get(POLICIES, model_id)
        assert default is not None, model_id
        kind, config = default.value
        return PolicyState(
            model_id=model_id, policy_type=kind, config=config, version=0, default_of=default.node
        )

    def all(self) -> list[PolicyState]:
        """Return the policies, defaults included, sorted by model. O(n log n)."""
        models = self.keys()
        return [policy for model in models if (policy := self.get(model)) is not None]

    def keys(self) -> list[str]:
        """Return the models that have a policy or a default, sorted. O(n log n)."""
        written = [model for model in self._table.map.unordered_keys() if isinstance(model, str)]
        return sorted({*written, *self._of_files()})

    def _of_files(self) -> list[str]:
        return self._defaults.keys(POLICIES)

    def put(self, model_id: str, *, policy_type: str, config: str) -> WriteReceipt:
        """Write a policy; as `MeshSyncManager.sync_policy_state`."""
        check_identifier("model_id", model_id)
        value = {
            "policy_type": check_identifier("policy_type", policy_type),
            "config": check_text("config", config),
        }
        return self._table.put(model_id, value)

    def remove(self, model_id: str) -> WriteReceipt:
        """Remove a policy that was written; the default is in force again, where there is one.

        Raises:
            UnknownKeyError: none was written for that model. State unchanged.
        """
        return self._table.remove(check_identifier("model_id", model_id))

    def unreadable(self) -> list[str]:
        """Return the keys whose values are no policies. O(changes since the last call)."""
        return self._table.unreadable()

    def note_changes(self, keys: Iterable[Any] | None) -> None:
        """Take note that keys have changed by what peers sent; None for all of them."""
        self._table.note_changes(keys)


def _thaw_policy(key: str, value: Any, version: int) -> PolicyState:
    return PolicyState(
        model_id=key,
        policy_type=check_identifier("policy_type", stored_field(value, "policy_type")),
        config=check_text("config", stored_field(value, "config")),
        version=version,
    )


class AppStore:
    """Application configuration: bytes, by key.

    Args:
        documents: where it is kept, in `app`.
    """

    __slots__ = ("_table", "_watchers")

    def __init__(self, documents: Documents) -> None:
        self._table = RecordTable(
            documents, APP_DOCUMENT, what="configuration", thaw=_thaw_bytes, is_cached=False
        )
        self._watchers: list[Callable[[str], None]] = []

    def __len__(self) -> int:
        """Return the number of keys. O(1)."""
        return len(self._table.map)

    def __contains__(self, key: str) -> bool:
        return self._table.get(key) is not None

    def get(self, key: str) -> bytes | None:
        """Return a key's bytes, or None. O(1)."""
        return self._table.get(key)

    def version(self, key: str) -> int:
        """Return how many changes a key has seen; 0 when it never was. O(1)."""
        return self._table.map.version(key)

    def keys(self) -> list[str]:
        """Return the keys, sorted. O(n log n)."""
        return [key for key in self._table.map if self._table.get(key) is not None]

    def set(self, key: str, value: bytes) -> WriteReceipt:
        """Write a key.

        Args:
            key: 1 byte to 1 KiB in UTF-8.
            value: up to 256 KiB.

        Raises:
            InvalidTypeError: a key that is not text, or a value that is not bytes.
            InvalidValueError: an empty key, or one that cannot be encoded as UTF-8.
            LimitError: too long a key or value. State unchanged after any of these.
        """
        _check_bytes(key, value)
        receipt = self._table.put(key, value)
        self._tell(key)
        return receipt

    @staticmethod
    def check(key: str, value: bytes) -> None:
        """Raise what `set` would raise; change nothing. O(size)."""
        _check_bytes(key, value)
        encode_value(value)

    def delete(self, key: str) -> WriteReceipt:
        """Remove a key.

        Raises:
            UnknownKeyError: it is not there. State unchanged.
        """
        receipt = self._table.remove(check_identifier("key", key))
        self._tell(key)
        return receipt

    def tag(self) -> int:
        """Return a number that is another one once anything here is different. O(changes)."""
        return self._table.map.digest()

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Call `watcher` with the key after each write made here; for parts of this room."""
        self._watchers.append(watcher)

    def unreadable(self) -> list[str]:
        """Return the keys whose values are not bytes. O(changes since the last call)."""
        return self._table.unreadable()

    def note_changes(self, keys: Iterable[Any] | None) -> None:
        """Take note that keys have changed by what peers sent; None for all of them."""
        self._table.note_changes(keys)

    def _tell(self, key: str) -> None:
        for watcher in self._watchers:
            watcher(key)


def _check_bytes(key: str, value: bytes) -> None:
    check_identifier("key", key)
    if not isinstance(value, bytes):
        raise InvalidTypeError(f"value must be bytes, not {type(value).__name__}")


def _thaw_bytes(_key: str, value: Any, _version: int) -> bytes:
    if type(value) is not bytes:
        raise InvalidTypeError("not bytes")
    return value


class MemberView(Protocol):
    """What the membership store needs of a member's record."""

    @property
    def name(self) -> str:
        """The node's name."""
        ...


MemberT = TypeVar("MemberT", bound=MemberView)


class MembershipStore(Generic[MemberT]):
    """The members, by name: a view of the membership table, which gossip alone changes.

    Args:
        members: returns the records of all members.
    """

    __slots__ = ("_members",)

    def __init__(self, members: Callable[[], Sequence[MemberT]]) -> None:
        self._members = members

    def __len__(self) -> int:
        """Return the number of members, this node included. O(n)."""
        return len(self._members())

    def get(self, name: str) -> MemberT | None:
        """Return a member's record, or None. O(n)."""
        return next((member for member in self._members() if member.name == name), None)

    def all(self) -> list[MemberT]:
        """Return the records, sorted by name. O(n log n)."""
        return sorted(self._members(), key=lambda member: member.name)
