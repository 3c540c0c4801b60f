"""What the users of a simulated cluster do: writes, removals, writes again, on few keys.

Keys are few so that writes meet; every value is written once only, so that one that is found
tells who wrote it. All go through the verbs that users have.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from meshlib.crdt import Dot, GCounter, ORSet
from meshlib.errors import ClockAheadError, NotReadyError
from meshlib.prefix import BLOCK_CHARACTERS
from meshlib.ratelimit import GLOBAL_KEY
from meshlib.replication import WriteContext, WriteReceipt
from meshlib.routing import TREE_PREFIX, PrefixSync, TreeInsert, TreeRemove
from meshlib.testing.checkers.ledger import Ledger
from meshlib.testing.checkers.limits import LimitLedger
from meshlib.testing.checkers.other_writes import MODELS, TAGS, VISITS
from meshlib.testing.checkers.sometimes import Sometimes
from meshlib.testing.world.hosts import Host
from meshlib.testing.world.scenario import Tuning

__all__ = ["Workload"]

REMOVAL_SHARE: Final = 0.3
BURST_SHARE: Final = 0.05
BURST_SIZE: Final = (5, 40)

LIMITED_KEYS: Final = (GLOBAL_KEY, "ann", "bob")
LIMITS: Final = (1, 3, 10, 50)
SPENT_AT_ONCE_MAX: Final = 6
NEVER_WAITING_SHARE: Final = 0.3

WORDS: Final = ("the ", "a ", "quick ", "brown ", "fox ", "jumps ", "over ", "lazy ", "dog ")

Action = Callable[[Host, float], bool]


class Workload:
    """Draws writes and makes them on nodes.

    Args:
        tuning: how many keys, how large values.
        rng: all chance of the workload.
        ledger: is told of every write.
        sometimes: counts what was refused.
        limits: is told of every limit, and of every decision that rests on one.
        limits_rng: all chance of what is asked of limits.
    """

    def __init__(
        self,
        tuning: Tuning,
        *,
        rng: random.Random,
        ledger: Ledger,
        sometimes: Sometimes,
        limits: LimitLedger,
        limits_rng: random.Random,
    ) -> None:
        self._tuning = tuning
        self._rng = rng
        self._ledger = ledger
        self._sometimes = sometimes
        self._limits = limits
        self._limits_rng = limits_rng
        self._written = 0
        self._actions: tuple[tuple[float, Action], ...] = (
            (0.30, self._configure),
            (0.45, self._set_policy),
            (0.65, self._report_worker),
            (0.80, self._cache),
            (0.87, self._count),
            (0.94, self._tag),
            (1.00, self._spend),
        )

    def wait_s(self) -> float:
        """Draw how long it is until the next write."""
        return self._rng.expovariate(self._tuning.writes_per_s)

    def write(self, host: Host, now: float) -> int:
        """Write something, or a burst of things, on a running node; return how many."""
        rng = self._rng
        count = rng.randint(*BURST_SIZE) if rng.random() < BURST_SHARE else 1
        done = 0
        for _ in range(count):
            self._written += 1
            dice = rng.random()
            act = next(action for share, action in self._actions if dice < share)
            try:
                done += act(host, now)
            except NotReadyError:
                continue  # it is compared with its peers' clocks just now
            except ClockAheadError:
                # Users are told, and come back when the clock is right.
                self._sometimes.count("write_refused_for_a_clock")
        return done

    def _key(self) -> str:
        return f"k{self._rng.randrange(self._tuning.key_count)}"

    def _tenant(self) -> str:
        """Draw a tenant: half of them are workers too."""
        key = self._key()
        return key if int(key[1:]) % 2 else f"t{key[1:]}"

    def _value(self, host: Host) -> str:
        size = self._rng.randint(1, self._tuning.value_bytes_max)
        return f"{host.label}.{self._written}.".ljust(size, "x")

    def _note(
        self, host: Host, document: str, key: str, now: float, write: Callable[[], WriteReceipt]
    ) -> bool:
        """Make a write to a map, and tell the ledger what the writer then holds."""
        state: Any = host.node.replica.get(document)
        before = state.entry(key)
        receipt = write()
        entry = host.node.replica.get(document).entry(key)
        if receipt.is_new and entry is not None:
            self._ledger.note(document, key, entry, now, before=before)
        return receipt.is_new

    def _is_removal(self, host: Host, document: str, key: str) -> bool:
        return self._rng.random() < REMOVAL_SHARE and key in host.node.replica.get(document)

    def _configure(self, host: Host, now: float) -> bool:
        sync, key = host.node.sync, self._key()
        value = self._value(host).encode()
        if self._is_removal(host, "app", key):
            return self._note(host, "app", key, now, lambda: sync.delete_config(key))
        return self._note(host, "app", key, now, lambda: sync.set_config(key, value))

    def _set_policy(self, host: Host, now: float) -> bool:
        sync, key, config = host.node.sync, self._key(), self._value(host)
        if self._is_removal(host, "policies", key):
            return self._note(host, "policies", key, now, lambda: sync.remove_policy_state(key))

        def write() -> WriteReceipt:
            receipt: WriteReceipt = sync.sync_policy_state(key, policy_type="test", config=config)
            return receipt

        return self._note(host, "policies", key, now, write)

    def _report_worker(self, host: Host, now: float) -> bool:
        sync, key, url = host.node.sync, self._key(), self._value(host)
        model, load = self._rng.choice(MODELS), self._rng.random()
        for tree in MODELS:  # a worker that goes, or takes another model, loses what it cached
            self._ledger.others.note_tenant_removed(TREE_PREFIX + tree, key)
        if self._is_removal(host, "workers", key):
            return self._note(host, "workers", key, now, lambda: sync.remove_worker_state(key))

        def write() -> WriteReceipt:
            receipt: WriteReceipt = sync.sync_worker_state(
                key, model_id=model, url=url, health=True, load=load
            )
            return receipt

        return self._note(host, "workers", key, now, write)

    def _cache(self, host: Host, _now: float) -> bool:
        rng = self._rng
        model, tenant = rng.choice(MODELS), self._tenant()
        if rng.random() < REMOVAL_SHARE / 3:
            receipt = host.node.sync.sync_tree_operation(model, TreeRemove(tenant))
            self._ledger.others.note_tenant_removed(TREE_PREFIX + model, tenant)
            return bool(receipt.is_new)
        text = "".join(rng.choices(WORDS, k=rng.randint(1, 6)))
        if self._tuning.prefix_sync is PrefixSync.HASH:
            # Blocks have no texts to look for.
            operation = TreeInsert(text * BLOCK_CHARACTERS, tenant)
            return bool(host.node.sync.sync_tree_operation(model, operation).is_new)
        worker = host.node.sync.get_worker_state(tenant)
        is_placed = worker is not None and worker.model_id == model
        receipt = host.node.sync.sync_tree_operation(model, TreeInsert(text, tenant))
        self._ledger.others.note_text(
            TREE_PREFIX + model, tenant, text, receipt, is_placed=is_placed
        )
        return bool(receipt.is_new)

    def _spend(self, host: Host, now: float) -> bool:
        """Set a limit that is not there yet, or ask for units: a burst, and mostly confirmed."""
        node, rng = host.node, self._limits_rng
        key = rng.choice(LIMITED_KEYS)
        config_key = node.sync.limits.config_key(key)
        if config_key not in node.sync.app:
            limit = rng.choice(LIMITS)
            self._limits.set_limit(key, limit)
            return self._note(
                host, "app", config_key, now, lambda: node.sync.limits.set(key, limit)
            )
        local = host.monotonic(now)
        for _ in range(rng.randint(1, SPENT_AT_ONCE_MAX)):
            if rng.random() < NEVER_WAITING_SHARE:
                decision = node.limiter.acquire(key, now=local)
            else:
                decision = node.limiter.ask(key, now=local).decision
            if decision is not None:
                self._limits.decided(host, key, 1, decision)
        return False

    def _count(self, host: Host, _now: float) -> bool:
        replica = host.node.replica
        replica.open(VISITS, type_tag="g_counter")

        def mutate(state: GCounter, context: WriteContext) -> GCounter:
            return state.increment(1, by=context.actor)

        receipt = replica.write(VISITS, mutate)
        self._ledger.others.note_increment(receipt)
        return bool(receipt.is_new)

    def _tag(self, host: Host, _now: float) -> bool:
        element = self._key()
        replica = host.node.replica
        state = replica.open(TAGS, type_tag="or_set")
        is_removal = self._rng.random() < REMOVAL_SHARE
        if is_removal and element not in state:
            return False

        deltas: list[ORSet[Any]] = []
        dots: list[Dot] = []

        def mutate(current: ORSet[Any], context: WriteContext) -> ORSet[Any]:
            if is_removal:
                deltas.append(current.remove(element))
            else:
                dots.append(context.dot())
                deltas.append(current.add(element, dot=dots[-1]))
            return deltas[-1]

        receipt = replica.write(TAGS, mutate)
        if is_removal:
            self._ledger.others.note_removal(deltas[-1].context, receipt)
        else:
            self._ledger.others.note_addition(element, dots[-1], deltas[-1].context, receipt)
        return bool(receipt.is_new)
