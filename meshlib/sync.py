"""`MeshSyncManager`: the one object through which a router reads and writes shared state.

Rule: what has to change together is changed here, and in nothing below: a worker that goes is
also removed from its model's tree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from meshlib.arguments import check_kind, check_number, check_text
from meshlib.clock import Stamp
from meshlib.crdt import LWWMap
from meshlib.errors import ClockSkewError, UnknownKeyError, check_several
from meshlib.limits import SUBSCRIPTION_QUEUE_MAX
from meshlib.ratelimit import GLOBAL_KEY, RULE_CONFIG_PREFIX, LimitSettings
from meshlib.replication import Change, Replica, WriteReceipt
from meshlib.routing import (
    SESSION_TTL_S,
    CacheAwarePolicy,
    Departure,
    Departures,
    HashedTreeDocument,
    PolicyTypes,
    PrefixSync,
    RouteDecision,
    SharedLoad,
    TreeDocument,
    TreeInsert,
    TreeMatch,
    TreeOperation,
    TreeRemove,
    TreeState,
    WorkerAges,
    model_of,
    tree_sync,
)
from meshlib.state import (
    APP_DOCUMENT,
    DEFAULTS_DOCUMENT,
    POLICIES,
    POLICIES_DOCUMENT,
    RULES,
    WORKERS_DOCUMENT,
    AppStore,
    ConfiguredDefaults,
    Defaults,
    Documents,
    MembershipStore,
    MemberView,
    PolicyState,
    PolicyStore,
    ReadChecks,
    StateChange,
    StoreName,
    Subscription,
    WorkerState,
    WorkerStore,
    check_identifier,
)

__all__ = ["MeshSyncManager"]

_STORE_OF: Final = {
    WORKERS_DOCUMENT: StoreName.WORKERS,
    POLICIES_DOCUMENT: StoreName.POLICIES,
    APP_DOCUMENT: StoreName.APP,
}

_SLICE_OPERATIONS: Final = 64
_SLICE_CHARACTERS: Final = 64 * 1024
"""Operations on a tree that are applied at once where others are to have their turn."""

_POLICIES_MAX: Final = 4096
"""Policies that are kept ready; one that is made again decides the same."""

UNREADABLE_NAMED_MAX: Final = 10
"""Keys of a store that cannot be read and are named; of the others it is told how many."""


class MeshSyncManager:
    """The stores of one node, and what the specification does with them.

    Writes are local and travel with the next flush; reads see what has arrived here.

    Args:
        replica: holds the documents.
        members: returns the records of all members.
        name: of this node.
        defaults: what this node's file says; by default nothing.
        prefix_sync: what is replicated of prompts; on all nodes the same.
    """

    def __init__(
        self,
        replica: Replica,
        *,
        members: Callable[[], Sequence[MemberView]] = tuple,
        name: str = "",
        defaults: ConfiguredDefaults | None = None,
        prefix_sync: PrefixSync = PrefixSync.TEXT,
    ) -> None:
        documents = Documents(replica)
        self.members: MembershipStore[MemberView] = MembershipStore(members)
        self.workers = WorkerStore(documents)
        self.defaults = Defaults(documents, name=name, own=defaults)
        self.policies = PolicyStore(documents, defaults=self.defaults)
        self.app = AppStore(documents)
        self.policy_types = PolicyTypes()
        self._policy_checks = ReadChecks(self._is_understood, all_keys=self.policies.keys)
        self.policy_types.on_registered = lambda: self._policy_checks.note(None)
        self.limits = LimitSettings(self.app, defaults=self.defaults)
        self.trees = tree_sync(documents, prefix_sync)
        self.trees.written_at = self._written_at
        self._clock = replica.clock
        self._tables: dict[str, WorkerStore | PolicyStore | AppStore] = {
            WORKERS_DOCUMENT: self.workers,
            POLICIES_DOCUMENT: self.policies,
            APP_DOCUMENT: self.app,
        }
        self._routes: dict[str, CacheAwarePolicy] = {}
        self._subscriptions: list[Subscription] = []
        self.check_route: Callable[[], None] = lambda: None
        """Called before a worker is chosen, and may refuse it by raising; see `Startup`."""
        self._departures = Departures(self.workers, self.trees)
        self._followers: dict[str, Callable[[Change], Iterable[StateChange]]] = {
            WORKERS_DOCUMENT: self._follow_workers,
            POLICIES_DOCUMENT: self._follow_policies,
            APP_DOCUMENT: self._follow_app,
            DEFAULTS_DOCUMENT: self._follow_defaults,
        }
        self.load = SharedLoad(replica.actor)
        """What all routers have in flight at each worker."""
        self.ages = WorkerAges(self.workers)
        self._seed = replica.actor

    # Workers

    def sync_worker_state(
        self,
        worker_id: str,
        *,
        model_id: str,
        url: str,
        health: bool,
        load: float,
        ttl_s: float | None = None,
    ) -> WriteReceipt:
        """Write what is known of a worker, everywhere. O(1).

        A worker that comes to serve another model is forgotten in the trees of both: it has loaded
        other weights, and its cache is empty.

        Args:
            worker_id: 1 byte to 1 KiB in UTF-8.
            model_id: the model that it serves; as `worker_id`.
            url: where it is reached.
            health: whether it may be chosen; a bool and no number.
            load: how busy it is; finite, 0 or more.
            ttl_s: its lease, 1 to 86,400 seconds: a node that has heard of no renewal and no write
                for so long takes it for not healthy, and after ten times as long it is removed.
                None: it stays as written.

        Returns:
            the number under which the write travels.

        Raises:
            InvalidTypeError: an argument of another type.
            InvalidValueError: an empty id, a text that is not Unicode, a load out of range.
            LimitError: an id or a url too long. State unchanged after any of these.
        """
        check_identifier("worker_id", worker_id)
        check_identifier("model_id", model_id)
        before = self.workers.get(worker_id)
        self._come_after(worker_id, model_id)
        receipt = self.workers.put(
            worker_id, model_id=model_id, url=url, health=health, load=load, ttl_s=ttl_s
        )
        self._departures.note(worker_id, model_id)
        if before is not None and before.model_id != model_id:
            self._shut_tenant(worker_id, before.model_id)
            self._forget_tenant(worker_id, model_id)
        return receipt

    def remove_worker_state(self, worker_id: str) -> WriteReceipt:
        """Remove a worker everywhere, and all it had cached. O(1) here.

        Raises:
            UnknownKeyError: there is none of that id. State unchanged.
        """
        check_identifier("worker_id", worker_id)
        before = self.workers.get(worker_id)
        models = {model for model in self.trees.models() if self.trees.holds(model, worker_id)}
        if before is not None:
            # Whether it has anything there or not: another node may be placing its first prompt.
            models.add(before.model_id)
        for model_id in models:
            self._come_after(worker_id, model_id)
        receipt = self.workers.remove(worker_id)
        for model_id in sorted(models):
            self._shut_tenant(worker_id, model_id)
        return receipt

    def clear_worker(self, worker_id: str) -> WriteReceipt:
        """Forget everywhere what a worker had cached: it has restarted and holds nothing. O(1).

        Raises:
            UnknownKeyError: there is none of that id. State unchanged.
        """
        check_identifier("worker_id", worker_id)
        worker = self.workers.get(worker_id)
        if worker is None:
            raise UnknownKeyError("worker", worker_id)
        return self._forget_tenant(worker_id, worker.model_id)

    def _written_at(self, model_id: str, worker_id: str) -> tuple[int, int] | None:
        """Return when a worker of a model was written last; None of what is no worker of it."""
        worker = self.workers.get(worker_id)
        if worker is None or worker.model_id != model_id:
            return None
        stamp = self.workers.written_at(worker_id)
        return None if stamp is None else stamp[:2]

    def _come_after(self, worker_id: str, model_id: str) -> None:
        """Have the next write of a worker be later than what the tree says of its removals. O(1).

        A clock that is behind would write it before a removal that this node knows.
        """
        wall_ms, logical = self.trees.epoch_stamp(model_id, worker_id)
        with suppress(ClockSkewError):  # the write is made, and opens nothing before its time
            self._clock.observe(Stamp(wall_ms, logical, self._clock.actor))

    def _forget_tenant(self, worker_id: str, model_id: str) -> WriteReceipt:
        # Whether it has anything there or not: another node may be placing its first prompt.
        receipt = self.sync_tree_operation(model_id, TreeRemove(worker_id))
        self._clear_load(model_id, (worker_id,))
        return receipt

    def _shut_tenant(self, worker_id: str, model_id: str) -> None:
        """Remove what a worker had cached that went by its last write, and name that write."""
        self.trees.shut(model_id, worker_id, stamp=self.workers.written_at(worker_id))
        self._clear_load(model_id, (worker_id,))

    def _clear_load(self, model_id: str, worker_ids: Iterable[str] | None) -> None:
        """End what is in flight at workers that have lost what they held. O(workers)."""
        now = self.load.latest_s
        for worker_id, epoch in self.trees.epochs(model_id, worker_ids).items():
            self.load.clear(worker_id, epoch=epoch, now=now)

    def _shut_all(self, gone: Iterable[Departure]) -> None:
        for model_id, worker_id, stamp in gone:
            self.trees.shut(model_id, worker_id, stamp=stamp)
            self._clear_load(model_id, (worker_id,))

    def get_worker_state(self, worker_id: str) -> WorkerState | None:
        """Return a worker, or None. O(1).

        Raises:
            InvalidTypeError: the id is no text.
        """
        check_text("worker_id", worker_id)
        return self.workers.get(worker_id)

    def get_all_worker_states(self) -> list[WorkerState]:
        """Return all workers, sorted by id. O(n log n)."""
        return self.workers.all()

    # Policies

    def sync_policy_state(self, model_id: str, *, policy_type: str, config: str) -> WriteReceipt:
        """Write the policy of a model, everywhere. O(size).

        Args:
            model_id: 1 byte to 1 KiB in UTF-8.
            policy_type: `cache_aware`, or a type registered with `policy_types`; as `model_id`.
            config: the policy's own configuration, checked by its type and kept as it is.

        Raises:
            InvalidTypeError: an argument of another type.
            InvalidValueError: an empty id, an unknown type, a configuration that the type does not
                take, a text that is not Unicode.
            LimitError: an argument too long. State unchanged after any of these.
        """
        check_identifier("model_id", model_id)
        self.policy_types.check(policy_type, config)
        receipt = self.policies.put(model_id, policy_type=policy_type, config=config)
        self._policy_checks.note((model_id,))
        return receipt

    def remove_policy_state(self, model_id: str) -> WriteReceipt:
        """Remove the policy that was written for a model, everywhere; its tree stays.

        What a file says of the model is in force again, where any does.

        Raises:
            UnknownKeyError: none was written. State unchanged.
        """
        receipt = self.policies.remove(model_id)
        self._policy_checks.note((model_id,))
        return receipt

    def get_policy_state(self, model_id: str) -> PolicyState | None:
        """Return a model's policy, written or a file's default, or None. O(1).

        Raises:
            InvalidTypeError: the id is no text.
        """
        check_text("model_id", model_id)
        return self.policies.get(model_id)

    def get_all_policy_states(self) -> list[PolicyState]:
        """Return all policies, files' defaults included, sorted by model. O(n log n)."""
        return self.policies.all()

    # Trees and routing

    def sync_tree_operation(self, model_id: str, operation: TreeOperation) -> WriteReceipt:
        """Apply an operation to a model's tree, everywhere.

        The size of the tree is kept under what the model's policy allows, by dropping what was
        used least recently, everywhere too. A text of a tenant that is a worker of another model is
        dropped at once: who sends it may not have heard yet that the worker was moved.

        Args:
            model_id: 1 byte to 1 KiB in UTF-8.
            operation: `TreeInsert(text, tenant)` or `TreeRemove(tenant)`.

        Raises:
            InvalidTypeError: no such operation, or an argument of another type.
            InvalidValueError: an empty text or name, or one that is not Unicode.
            LimitError: a text or name too long, a text that alone is larger than the tree may
                be, a tree or a tenant more than there may be.
            DocumentTypeError: a peer keeps something else under the tree's name. State unchanged
                after any of these.
        """
        characters_max = self.policy(model_id).config.characters_max
        if isinstance(operation, TreeInsert) and self._departures.is_removed(operation.tenant):
            self.trees.check(model_id, (operation,), characters_max=characters_max)
            # What was there before goes with the worker, and this is put there on purpose.
            self._shut_tenant(operation.tenant, model_id)
        return self.trees.apply(model_id, operation, characters_max=characters_max)

    def sync_tree_operations(
        self, model_id: str, operations: Sequence[TreeOperation]
    ) -> list[WriteReceipt]:
        """Apply operations in order: all of them or, when one cannot be, none.

        Errors are those of `sync_tree_operation`, of these operations together: the tenants of all
        of them must find room. `check_tree_operation` tells which one is wrong in itself.
        """
        check_several("operations", operations)
        characters_max = self.policy(model_id).config.characters_max
        self.trees.check(model_id, operations, characters_max=characters_max)
        return [self.sync_tree_operation(model_id, operation) for operation in operations]

    def sync_tree_slices(
        self, model_id: str, operations: Sequence[TreeOperation]
    ) -> Iterator[list[WriteReceipt]]:
        """Apply operations as `sync_tree_operations` does, a few at a time.

        They are checked together by this call, and applied as slices are asked for. Between two
        slices the caller may do something else; what is written then may leave no room for the
        rest, whose error is raised when its slice is asked for. What is not asked for is not
        applied. Each step O(64 operations) or 64 Ki characters.
        """
        check_several("operations", operations)
        characters_max = self.policy(model_id).config.characters_max
        self.trees.check(model_id, operations, characters_max=characters_max)
        return self._slices_of(model_id, operations)

    def _slices_of(
        self, model_id: str, operations: Sequence[TreeOperation]
    ) -> Iterator[list[WriteReceipt]]:
        receipts: list[WriteReceipt] = []
        size = 0
        for operation in operations:
            receipts.append(self.sync_tree_operation(model_id, operation))
            size += len(operation.text) if isinstance(operation, TreeInsert) else 0
            if len(receipts) >= _SLICE_OPERATIONS or size >= _SLICE_CHARACTERS:
                yield receipts
                receipts, size = [], 0
        if receipts:
            yield receipts

    def check_tree_operation(self, model_id: str, operation: TreeOperation) -> None:
        """Raise what `sync_tree_operation` would raise; change nothing."""
        characters_max = self.policy(model_id).config.characters_max
        self.trees.check(model_id, (operation,), characters_max=characters_max)

    def get_tree_state(self, model_id: str) -> TreeState | None:
        """Return a model's tree as operations, or None when there is none that can be read.

        Raises:
            InvalidTypeError: the id is no text.
        """
        check_text("model_id", model_id)
        return self.trees.state(model_id)

    def tree_slices(self, model_id: str) -> Iterator[tuple[TreeInsert, ...]]:
        """Yield the operations of `get_tree_state`, a few at a time; some slices are empty.

        Large trees take long to list. Between two slices the caller may do something else, and the
        tree may change: what comes or goes meanwhile is listed or not.

        Raises:
            InvalidTypeError: the id is no text.
        """
        check_text("model_id", model_id)
        return self.trees.slices(model_id)

    def get_tree_version(self, model_id: str) -> int | None:
        """Return the version of a model's tree, or None when there is none that can be read.

        Raises:
            InvalidTypeError: the id is no text.
        """
        check_text("model_id", model_id)
        return self.trees.version(model_id)

    def match_tree(self, model_id: str, text: str) -> TreeMatch:
        """Find the longest prefix of a text that a tenant of the model has cached. O(d + m).

        Raises:
            InvalidTypeError: an argument that is not text.
            InvalidValueError: an empty model, or a text that is not Unicode.
        """
        return self.trees.match(model_id, text)

    def policy(self, model_id: str) -> CacheAwarePolicy:
        """Return the cache-aware policy of a model; the same object while it is kept. O(1)."""
        check_identifier("model_id", model_id)
        policy = self._routes.get(model_id)
        if policy is None:
            if len(self._routes) >= _POLICIES_MAX:
                del self._routes[next(iter(self._routes))]
            policy = self._routes[model_id] = CacheAwarePolicy(
                model_id,
                workers=self.workers,
                policies=self.policies,
                trees=self.trees,
                types=self.policy_types,
                load=self.load,
                ages=self.ages,
                seed=self._seed,
            )
        return policy

    def select(
        self,
        model_id: str,
        text: str,
        *,
        tokens: float | None = None,
        exclude: Collection[str] = (),
        candidates: Collection[str] | None = None,
        salt: str = "",
        session: str = "",
        session_ttl_s: float = SESSION_TTL_S,
        held: Mapping[str, int] | None = None,
        now: float | None = None,
    ) -> RouteDecision:
        """Choose a worker of a model for a prompt, and record nothing.

        As `CacheAwarePolicy.select`. `placed` records it once the worker has taken it.

        Args:
            model_id: the model.
            text: the prompt.
            tokens: how many it has; None: it is guessed from its length.
            exclude: workers that are not to be chosen.
            candidates: the only ones that may be chosen; None: all of the model.
            salt: what else a cached prefix depends on.
            session: the conversation or user that it is part of; empty: none.
            session_ttl_s: for so long after its last prompt a session stays at its worker, in
                seconds; 1 to 86,400.
            held: how many characters of the prompt's beginning workers have cached, by a better
                word than the tree's; None: nobody knows better.
            now: monotonic seconds; None: the latest time that is known here.

        Raises:
            NotReadyError: the node does not know yet which workers there are, and may not choose
                among those it knows.
            LocalError: as `CacheAwarePolicy.select`.
        """
        self.check_route()
        return self.policy(model_id).select(
            text,
            tokens=tokens,
            exclude=exclude,
            candidates=candidates,
            salt=salt,
            session=session,
            session_ttl_s=session_ttl_s,
            held=held,
            now=self._time(now),
        )

    def _time(self, now: float | None) -> float:
        if now is None:
            return self.load.latest_s
        check_number("now", now, wanted="a number of seconds")
        return now

    def placed(self, decision: RouteDecision) -> None:
        """Record everywhere that a worker has taken a prompt; as `CacheAwarePolicy.placed`.

        Raises:
            InvalidTypeError: no decision.
        """
        check_kind("decision", decision, RouteDecision, wanted="a RouteDecision")
        if decision.model_id:
            self.policy(decision.model_id).placed(decision)

    def route(
        self,
        model_id: str,
        text: str,
        *,
        tokens: float | None = None,
        exclude: Collection[str] = (),
        candidates: Collection[str] | None = None,
        salt: str = "",
        session: str = "",
        session_ttl_s: float = SESSION_TTL_S,
        held: Mapping[str, int] | None = None,
        record: bool = True,
        now: float | None = None,
    ) -> RouteDecision:
        """Choose a worker of a model for a prompt, and record the placement at once.

        As `select` and `placed`; without `record` as `select` alone. Never waits.

        Raises:
            NotReadyError: the node does not know yet which workers there are, and may not choose
                among those it knows. Nothing was placed.
            LocalError: as `CacheAwarePolicy.select`.
        """
        if record is not True:
            check_kind("record", record, bool, wanted="True or False")
        self.check_route()
        # A known model was checked when it became known.
        known = self._routes.get(model_id) if type(model_id) is str else None
        policy = self.policy(model_id) if known is None else known
        decision = policy.select(
            text,
            tokens=tokens,
            exclude=exclude,
            candidates=candidates,
            salt=salt,
            session=session,
            session_ttl_s=session_ttl_s,
            held=held,
            now=self.load.latest_s if now is None else self._time(now),
        )
        if record and held is not None:
            policy.placed(decision)  # what the tree has is another question
        elif record:
            matched = decision.matched
            policy.placed(decision, held=matched + len(decision.key) - len(text) if matched else 0)
        return decision

    # Configuration and limits

    def set_config(self, key: str, value: bytes) -> WriteReceipt:
        """Write application configuration, everywhere. O(size).

        The keys of limits, `global_rate_limit` and `rate_limit:*`, take limits and nothing else.

        Raises:
            InvalidValueError: what is no limit, under the key of one.
            LocalError: as `AppStore.set`. State unchanged after either.
        """
        if isinstance(key, str) and isinstance(value, bytes):
            self.limits.check_config(key, value)
        return self.app.set(key, value)

    def check_config(self, key: str, value: bytes) -> None:
        """Raise what `set_config` would raise; change nothing. O(size)."""
        self.app.check(key, value)
        self.limits.check_config(key, value)

    def get_config(self, key: str) -> bytes | None:
        """Return a key's bytes, or None. O(1).

        Raises:
            InvalidTypeError: the key is no text.
        """
        check_text("key", key)
        return self.app.get(key)

    def delete_config(self, key: str) -> WriteReceipt:
        """Remove a key everywhere; `UnknownKeyError` when it is not there."""
        return self.app.delete(key)

    def config_keys(self) -> list[str]:
        """Return the keys, sorted. O(n log n)."""
        return self.app.keys()

    def set_global_rate_limit(self, limit_per_second: int) -> WriteReceipt:
        """Set the global limit, everywhere; 0 switches it off.

        Raises:
            InvalidTypeError: no integer; a bool is none.
            InvalidValueError: negative, or over 2**53. State unchanged after either.
        """
        return self.limits.set(GLOBAL_KEY, limit_per_second)

    def get_global_rate_limit(self) -> int | None:
        """Return the global limit in units a second, or None when there is none.

        What was written, else what a file says; `limits.default_of` tells whose file.

        Raises:
            DecodeError: what is stored as the limit is none.
        """
        return self.limits.configured(GLOBAL_KEY)

    # Changes

    def subscribe(
        self,
        *,
        stores: Collection[StoreName] = tuple(StoreName),
        queue_max: int = SUBSCRIPTION_QUEUE_MAX,
    ) -> Subscription:
        """Hear of changes from now on, local ones included. Close it when done.

        Args:
            stores: the stores to hear of; all by default.
            queue_max: as for `Subscription`.
        """
        subscription = Subscription(stores=stores, queue_max=queue_max)
        self._subscriptions.append(subscription)
        return subscription

    def publish(self, changes: Sequence[Change]) -> None:
        """Follow what the replica reports and tell the subscribers; for the driver of the node.

        O(what changed).
        """
        of_defaults: list[StateChange] = []
        for change in changes:
            follow = self._followers.get(change.document)
            of_defaults += self._follow_tree(change) if follow is None else follow(change)
        if self._subscriptions:
            self._tell(changes, of_defaults)

    def _tell(self, changes: Iterable[Change], of_defaults: Iterable[StateChange]) -> None:
        self._subscriptions = [sub for sub in self._subscriptions if not sub.is_closed]
        told = [translated for change in changes for translated in _translate(change)]
        told += of_defaults
        for subscription in self._subscriptions:
            subscription.put(told)

    def _follow_workers(self, change: Change) -> Iterable[StateChange]:
        self.workers.note_changes(_changed_keys(change))
        self._shut_all(self._departures.left_behind((change,)))
        return ()

    def _follow_policies(self, change: Change) -> Iterable[StateChange]:
        keys = _changed_keys(change)
        self.policies.note_changes(keys)
        self._policy_checks.note(keys)
        return ()

    def _follow_app(self, change: Change) -> Iterable[StateChange]:
        keys = _changed_keys(change)
        self.app.note_changes(keys)
        self.limits.note_changes(keys)
        return ()

    def _follow_tree(self, change: Change) -> Iterable[StateChange]:
        model_id = model_of(change.document)
        if model_id is not None:
            self.trees.note_changes((model_id,))
            self._note_removals(model_id, change)
            self._drop_late(model_id, change)
        return ()

    def _follow_defaults(self, change: Change) -> Iterable[StateChange]:
        return self._note_defaults(_changed_keys(change), is_local=change.is_local)

    def _note_removals(self, model_id: str, change: Change) -> None:
        """End what is in flight at workers that a peer has cleared. O(tenants of the change)."""
        if change.is_local or not isinstance(change.delta, TreeDocument | HashedTreeDocument):
            return
        self._clear_load(model_id, change.delta.cache.removed_tenants())

    def _drop_late(self, model_id: str, change: Change) -> None:
        """Drop what peers have put under workers that were removed. O(tenants of the change)."""
        if change.is_local or not isinstance(change.delta, TreeDocument | HashedTreeDocument):
            return
        self._shut_all(self._departures.late(model_id, change.delta.cache.known_tenants()))

    def _note_defaults(self, names: list[Any] | None, *, is_local: bool) -> list[StateChange]:
        """Bring what is in force for want of a written value up to what the nodes say."""
        told: list[StateChange] = []
        for kind, key in sorted(self.defaults.follow(names)):
            if kind == POLICIES:
                self._policy_checks.note((key,))
                told.append(StateChange(StoreName.POLICIES, key, is_local))
            else:
                name = RULE_CONFIG_PREFIX + key if kind == RULES else self.limits.config_key(key)
                told.append(StateChange(StoreName.APP, name, is_local))
        return told

    def note_all(self) -> None:
        """Take note that anything may be different, after a state was put in place whole."""
        self.defaults.follow(None)
        for store in self._tables.values():
            store.note_changes(None)
        self.limits.note_changes(None)
        self._policy_checks.note(None)
        self.trees.note_changes(None)
        for model_id in self.trees.models():
            self._clear_load(model_id, None)

    def publish_loss(self) -> None:
        """Tell all that changes were dropped and everything must be read again."""
        self.note_all()
        self._shut_all(self._departures.left_behind_by_all())
        for subscription in self._subscriptions:
            subscription.reset()

    def problems(self) -> tuple[str, ...]:
        """Tell what is wrong with the stores, one line each; empty when all can be read.

        O(what changed since the last call).
        """
        stores = (
            ("the worker store", self.workers),
            ("the policy store", self.policies),
            ("the app store", self.app),
            ("the rate-limit store", self.limits),
            ("the tree store", self.trees),
            ("the defaults of files", self.defaults),
        )
        unreadable: list[str] = []
        for name, store in stores:
            keys = store.unreadable()
            named, more = keys[:UNREADABLE_NAMED_MAX], len(keys) - UNREADABLE_NAMED_MAX
            unreadable += (f"{name} holds {key}, which cannot be read" for key in named)
            if more > 0:
                unreadable.append(f"{name} holds {more} more keys that cannot be read")
        odd = [self.policies.get(model) for model in sorted(self._policy_checks.unreadable())]
        return (*unreadable, *self.policy_types.problems(policy for policy in odd if policy))

    def small_trees(self) -> list[str]:
        """Tell which trees have room for too few prompts, one line each, sorted.

        Of models that this node has routed for. O(these models).
        """
        lines = [policy.tree_problem() for _, policy in sorted(self._routes.items())]
        return [line for line in lines if line]

    def _is_understood(self, model_id: str) -> bool:
        policy = self.policies.get(model_id)
        return policy is None or not self.policy_types.problems((policy,))


def _changed_keys(change: Change) -> list[Any] | None:
    """Return the keys of a map that were set or removed, in no order; None: it may be any.

    O(changed).
    """
    if change.is_reset or not isinstance(change.delta, LWWMap):
        return None
    return change.delta.touched_keys()


def _translate(change: Change) -> Iterable[StateChange]:
    store = _STORE_OF.get(change.document)
    if store is not None:
        if change.is_reset:
            return [StateChange(store, None, change.is_local)]
        if isinstance(change.delta, LWWMap):
            keys = [key for key, _ in change.delta.entries() if isinstance(key, str)]
            return [StateChange(store, key, change.is_local) for key in keys]
    model_id = model_of(change.document)
    return [] if model_id is None else [StateChange(StoreName.TREES, model_id, change.is_local)]
