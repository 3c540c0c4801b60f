"""What a program calls: one object that supplies the time and knows its thread.

Rule: every verb here is an ordinary function that never waits, and is refused, with nothing
changed, before the start, after the end, and in another thread than the event loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping
from time import monotonic
from typing import Any, ParamSpec, TypeVar, overload

from meshlib.aio.gate import Gate
from meshlib.aio.guarded import guarded
from meshlib.arguments import check_kind
from meshlib.crdt import Lattice
from meshlib.errors import ForeignClockError
from meshlib.membership import MemberRecord
from meshlib.node import Health, MeshNode
from meshlib.ratelimit import (
    GLOBAL_KEY,
    Decision,
    KeyUse,
    LimitSettings,
    LimitUsage,
    RateLimitStats,
    Reservation,
    SlotTicket,
    Ticket,
)
from meshlib.replication import Document
from meshlib.routing import SESSION_TTL_S, RouteDecision
from meshlib.sync import MeshSyncManager

__all__ = ["MeshFront"]

P = ParamSpec("P")
T = TypeVar("T")
LatticeT = TypeVar("LatticeT", bound=Lattice)


class MeshFront:
    """The verbs of a running node; `MeshRuntime` has them, and starts and ends it.

    Each raises StateError before the start and after the end, and ThreadError in another thread
    than the event loop's; see `call`.
    """

    def __init__(self) -> None:
        self._gate = Gate()
        self._node: MeshNode | None = None
        self._handed_out: MeshNode | None = None

    def _entered(self) -> MeshNode:
        """Return the node to one that may enter now, for one use in this turn of the loop."""
        self._gate.check()
        if self._node is None:
            self._gate.refuse()
        return self._node

    # What is there

    @property
    def node(self) -> MeshNode:
        """The node behind this. Its local verbs may be called; its driver's side may not.

        It may be kept: whatever is public on it, and on what is reached through it, raises
        StateError after the end and ThreadError in another thread, as the verbs here do; but for
        its `state`, which says `stopped`.
        """
        node = self._entered()
        if self._handed_out is None:
            self._handed_out = guarded(node, self._gate.check, always=frozenset({"state"}))
        return self._handed_out

    @property
    def sync(self) -> MeshSyncManager:
        """Workers, policies, trees, configuration: read here, and written everywhere."""
        return self.node.sync

    @property
    def limits(self) -> LimitSettings:
        """The limits by key: read here, and written everywhere."""
        return self.node.sync.limits

    def members(self) -> tuple[MemberRecord, ...]:
        """Return every known member, this node included, sorted by name. O(n)."""
        return self._entered().members()

    def health(self) -> Health:
        """Judge the cluster and this node's stores; as `MeshNode.health`."""
        return self._entered().health()

    @property
    def is_ready(self) -> bool:
        """Whether the node holds what its cluster held when they met, or has begun itself."""
        return self._entered().is_ready

    # Decisions

    def acquire(self, key: str, *, cost: int = 1) -> Decision:
        """Decide whether a request may pass, and count it when it may. O(1), and never waits.

        Admits from what this node holds, else on credit that later windows repay; so a window
        may admit more than the limit. `MeshRuntime.acquire_confirmed` keeps to it.

        Args:
            key: the rate-limit key; `global` is that of the global limit.
            cost: the request's units, 1 to the limit.

        Raises:
            NotReadyError: the node is not ready, and knows no limit of this key; it is admitted
                where `StartupConfig.acquire` is `open`.
            LocalError: as `RateLimiter.acquire`; nothing is counted.
        """
        node = self._node
        if node is None:
            self._gate.refuse()
        if not node.is_ready:
            self._gate.check()
            early = node.startup.decide(key, cost=cost)
            if early is not None:
                return early
        try:
            return node.limiter.acquire(key, cost=cost, now=monotonic())
        except ForeignClockError:
            # The process was stopped for over a day, and this came before the driver's next step.
            node.note_time(monotonic())
            return node.limiter.acquire(key, cost=cost, now=monotonic())

    def _ask(self, key: str, *, cost: int, timeout_s: float | None) -> Ticket:
        """Ask whether a request may pass; as `RateLimiter.ask`, which does not wait either."""
        node = self._entered()
        if not node.is_ready:
            early = node.startup.decide(key, cost=cost)
            if early is not None:
                return Ticket(key, cost, monotonic(), early)
        try:
            return node.limiter.ask(key, cost=cost, timeout_s=timeout_s, now=monotonic())
        except ForeignClockError:
            # As for `acquire`.
            node.note_time(monotonic())
            return node.limiter.ask(key, cost=cost, timeout_s=timeout_s, now=monotonic())

    def acquire_many(self, costs: Mapping[str, int]) -> Decision:
        """Decide whether a request may pass the limits of several keys: all or nothing.

        Never waits, as `acquire`. What is refused counts nowhere.

        Args:
            costs: units by rate-limit key, 1 to 100 keys.

        Raises:
            NotReadyError: as `acquire`, for any of the keys.
            LocalError: as `RateLimiter.acquire_many`; nothing is counted.
        """
        return self._limited(lambda node, now: node.acquire_many(costs, now=now))

    def peek(self, key: str, *, cost: int = 1) -> Decision:
        """Tell what `acquire` would decide by what is known here, and count nothing.

        Args:
            key: the rate-limit key.
            cost: the request's units, 1 to the limit.

        Raises:
            NotReadyError: the node is not ready, and knows no limit of this key.
            LocalError: as `RateLimiter.peek`.
        """
        return self._limited(lambda node, now: node.peek(key, cost=cost, now=now))

    def refund(self, key: str, *, cost: int = 1) -> None:
        """Give units back that were admitted and not used, in the windows that run.

        Args:
            key: the rate-limit key.
            cost: how many units, 1 to the limit.

        Raises:
            NotReadyError: the node is not ready, and knows no limit of this key.
            LocalError: as `RateLimiter.refund`; nothing is given back.
        """
        self._limited(lambda node, now: node.refund(key, cost=cost, now=now))

    def reset_limit(self, key: str) -> None:
        """Let nothing of a key's limits be used or owed any more; as `RateLimiter.reset`.

        Args:
            key: the rate-limit key.

        Raises:
            NotReadyError: the node is not ready, and knows no limit of this key.
            LocalError: as `RateLimiter.reset`.
        """
        self._limited(lambda node, now: node.reset_limit(key, now=now))

    def reserve(self, key: str, *, estimate: int, lease_s: float = 600.0) -> Reservation:
        """Count an estimate of what is known only later, such as tokens; `settle` corrects it.

        Never waits, as `acquire`.

        Args:
            key: the rate-limit key.
            estimate: units, 1 to the limit.
            lease_s: seconds after which it stays at its estimate, 1 to 86,400.

        Raises:
            NotReadyError: the node is not ready, and knows no limit of this key.
            LocalError: as `RateLimiter.reserve`; nothing is counted.
        """
        return self._limited(
            lambda node, now: node.reserve(key, estimate=estimate, lease_s=lease_s, now=now)
        )

    def settle(self, reservation: Reservation | str, *, actual: int) -> None:
        """Count what was really used in the place of an estimate.

        What is less is given back, in windows that still run; what is more is counted beyond the
        limit too, as debt of the next window, at most once the limit.

        Args:
            reservation: as `reserve` returned it, or its id; of this node.
            actual: units, 0 to 2**53.

        Raises:
            UnknownKeyError: it is none of this node, was settled, or its lease has ended.
            LocalError: units that cannot be. Nothing is counted.
        """
        self._limited(lambda node, now: node.settle(reservation, actual=actual, now=now))

    def release_slot(self, ticket: SlotTicket) -> None:
        """Give back the slot of a request that is over; a second time does nothing. Never waits.

        Args:
            ticket: as `acquire_slot` returned it; one that was refused has nothing to give back.

        Raises:
            InvalidTypeError: no ticket.
        """
        check_kind("ticket", ticket, SlotTicket, wanted="a ticket, as acquire_slot returns it")
        slot = ticket.slot
        if slot is not None:
            self._limited(lambda node, now: node.limiter.release_slot(slot, now=now))

    def _limited(self, use: Callable[[MeshNode, float], T]) -> T:
        """Use the limiter at the time that it is."""
        node = self._entered()
        try:
            return use(node, monotonic())
        except ForeignClockError:
            # As for `acquire`.
            node.note_time(monotonic())
            return use(node, monotonic())

    def rate_limit_stats(self, key: str = GLOBAL_KEY) -> RateLimitStats:
        """Return what the whole cluster used of a limit; as `RateLimiter.stats`.

        Raises:
            NotReadyError: the node is not ready, and knows no limit of this key.
        """
        node = self._entered()
        node.startup.check_limit(key)
        node.note_time(now := monotonic())
        return node.limiter.stats(key, now=now)

    def rate_limit_usage(self, key: str) -> list[LimitUsage]:
        """Return what the whole cluster used of each limit of a key; as `RateLimiter.usage`.

        Args:
            key: the rate-limit key.

        Raises:
            NotReadyError: the node is not ready, and knows no limit of this key.
            LocalError: as `RateLimiter.usage`.
        """
        self._entered().startup.check_limit(key)
        return self._limited(lambda node, now: node.limiter.usage(key, now=now))

    def busiest_keys(self, *, count: int = 20) -> list[KeyUse]:
        """Return the keys of which this node admitted and refused most. O(keys), for people.

        Args:
            count: how many of either kind at most, at least 1.
        """
        return self._entered().limiter.busiest(count=count)

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
    ) -> RouteDecision:
        """Choose a worker for a prompt and record the placement everywhere. Never waits.

        As `MeshSyncManager.route`. Without `record` nothing is recorded until `placed` is called:
        a request that is shed, or that the worker refuses, then leaves no trace.

        Args:
            model_id: the model.
            text: the prompt.
            tokens: how many it has; None: it is guessed from its length.
            exclude: workers that are not to be chosen: they have failed this request already, or
                are not to be tried now.
            candidates: the only ones that may be chosen; None: all of the model.
            salt: what else a cached prefix depends on: an adapter, a cache salt, a tenant.
            session: the conversation or user that it is part of: it goes to the worker that the
                session was with last, whichever router asks. Empty: none.
            session_ttl_s: for so long after its last prompt a session stays at its worker, in
                seconds; 1 to 86,400.
            held: how many characters of the prompt's beginning workers have cached, by a better
                word than the tree's, such as that of the engines themselves; of those that it
                names the tree is not believed. None: nobody knows better.
            record: whether it is recorded at once that the worker will hold the prompt.

        Raises:
            NotReadyError: the node is not ready; `StartupConfig.route`.
            LocalError: as `CacheAwarePolicy.select`.
        """
        return self._entered().sync.route(
            model_id,
            text,
            tokens=tokens,
            exclude=exclude,
            candidates=candidates,
            salt=salt,
            session=session,
            session_ttl_s=session_ttl_s,
            held=held,
            record=record,
            now=monotonic(),
        )

    def placed(self, decision: RouteDecision) -> None:
        """Record everywhere that a worker has taken a prompt; as `MeshSyncManager.placed`."""
        self._entered().placed(decision)

    def begin(self, target: RouteDecision | str, *, prefill_tokens: float | None = None) -> str:
        """Count a request that is sent to a worker, on all routers; as `MeshNode.begin`.

        Args:
            target: what `route` said, or the worker's id.
            prefill_tokens: tokens that the worker has to prefill; None: as the decision expects.

        Returns:
            the request's name, for `first_token`, `end` and `renew_request`.
        """
        return self._entered().begin(target, prefill_tokens=prefill_tokens, now=monotonic())

    def first_token(self, request_id: str) -> None:
        """Take note that a request's worker has answered; as `MeshNode.first_token`."""
        self._entered().first_token(request_id, now=monotonic())

    def end(self, request_id: str) -> None:
        """Take note that a request is over, however it ended; as `MeshNode.end`."""
        self._entered().end(request_id, now=monotonic())

    def renew_request(self, request_id: str, *, decoded_tokens: int | None = None) -> None:
        """Let a long request count for another 600 seconds; as `MeshNode.renew_request`.

        Args:
            request_id: the request.
            decoded_tokens: how many it has decoded so far, if you know; 0 to 2**32 - 1.
        """
        self._entered().renew_request(request_id, decoded_tokens=decoded_tokens, now=monotonic())

    def renew_worker(self, worker_id: str) -> None:
        """Take note that a worker with a `ttl_s` lives, on all nodes; as `MeshNode.renew_worker`.

        `MeshRuntime.keep_worker` does so at intervals.
        """
        self._entered().renew_worker(worker_id, now=monotonic())

    # Documents

    def document(self, name: str, kind: type[LatticeT]) -> Document[LatticeT]:
        """Return a document of a type of one's own choice, made empty when it is not there. O(1).

        Making it is no write: peers hear of it with the first one.

        Args:
            name: the same on every node; 1 to 1,088 bytes of UTF-8.
            kind: a registered class of lattices, such as `ORSet` or `ORMap.of(ORSet)`.

        Raises:
            DocumentTypeError: it exists with another type.
            InvalidTypeError: the class is not registered, or the name is no text.
            InvalidValueError: a malformed name, or one of the library's own: those of its stores,
                and those under a prefix that it keeps for itself, such as `tree:`.
            LimitError: one more document than allowed, or too long a name.
        """
        return self._entered().document(name, kind)

    # Other threads

    @overload
    def call(
        self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @overload
    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function in the thread of the event loop, and return what it returns.

        The one way to use a node from another thread, such as a pool that serves requests:
        `mesh.call(mesh.acquire, "global", cost=1)`, `mesh.call(mesh.acquire_confirmed, "global")`.
        What one function does is done at one time, as far as the mesh is concerned. The caller
        waits for one turn of the loop, some tens of microseconds when it is idle; for a
        coroutine's function until that is done. In the loop's own thread a function is just
        called.

        Args:
            function: any function, or a coroutine's, which runs as a task of the loop; whatever it
                does between two awaits holds the loop.
            args: its arguments.
            kwargs: likewise.

        Raises:
            InvalidTypeError: no function; or a coroutine's, in the loop's own thread, where it is
                awaited. Nothing ran.
            StateError: before the start, after the end, or the loop ended meanwhile.
            BaseException: what the function raised.
        """
        return self._gate.call(function, *args, **kwargs)
