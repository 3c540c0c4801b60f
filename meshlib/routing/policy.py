"""How one model's prompts are routed: which policy is in force, what it is asked, what is recorded.

Rule: a decision and its record are two steps. `select` changes nothing that anybody else sees;
`placed` says that a worker has taken a prompt, and only then is it known to hold it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from meshlib.errors import InvalidTypeError, StateError
from meshlib.limits import TREE_CHARACTERS_MAX
from meshlib.ring import ConsistentHashRing
from meshlib.routing.ages import WorkerAges
from meshlib.routing.asking import check_held, check_tokens, eligible, keys_of
from meshlib.routing.cache_aware import CACHE_AWARE, CacheAwareConfig, choose_worker
from meshlib.routing.expected_time import EXPECTED_TIME
from meshlib.routing.load import SharedLoad
from meshlib.routing.policy_types import PolicyTypes
from meshlib.routing.prompts import (
    MARK,
    SESSION_TTL_S,
    session_holder,
)
from meshlib.routing.protocol import Policy, Question
from meshlib.routing.records import RouteDecision, RouteReason
from meshlib.routing.trees import TreeSync
from meshlib.state import PolicyState, PolicyStore, WorkerState, WorkerStore, check_text

TREE_PROMPTS_MIN: Final = 100
"""A tree that has room for fewer prompts than this is a problem."""

__all__ = [
    "CACHE_AWARE",
    "CacheAwareConfig",
    "CacheAwarePolicy",
    "choose_worker",
]


class CacheAwarePolicy:
    """Routes the prompts of one model by what its workers have cached, or as its policy says.

    The tree is the replicated one: what any node places is known to all, and a restarted node
    knows it again as soon as it has the state of a peer.

    Args:
        model_id: the model.
        workers: the workers of all models.
        policies: the policies of all models; this model's sets which of the types decides, and
            how. A change of it counts from the next decision on. Without one it is
            `expected_time` where routers tell each other what they prefill, and `cache_aware` else.
        types: the policy types that this node knows.
        trees: the routing trees of all models.
        load: what all routers have in flight.
        ages: since when this router knows its workers.
        seed: 8 bytes or more that differ from router to router.
    """

    def __init__(
        self,
        model_id: str,
        *,
        workers: WorkerStore,
        policies: PolicyStore,
        trees: TreeSync,
        types: PolicyTypes,
        load: SharedLoad,
        ages: WorkerAges,
        seed: bytes = b"\0" * 8,
    ) -> None:
        self.model_id = model_id
        self._workers = workers
        self._policies = policies
        self._trees = trees
        self._types = types
        self._load = load
        self._ages = ages
        self._seed = seed
        self._number = 0
        self._begun: dict[str, list[str]] = {}
        self._known: tuple[WorkerState, ...] = ()
        self._healthy: dict[str, WorkerState] = {}
        self._reported: dict[str, float] = {}
        self._state: PolicyState | None = None
        self._situation: tuple[bool, int] | None = None
        self._read: tuple[str, str, int] | None = None
        self._policy: Policy = CacheAwareConfig()
        self._ring: tuple[tuple[str, ...], ConsistentHashRing] | None = None

    @property
    def policy(self) -> Policy:
        """The policy in force, with its settings. O(1) until it changes."""
        state = self._policies.get(self.model_id)
        situation = self._load.is_in_use, self._types.revision
        if state is self._state and situation == self._situation:
            return self._policy
        self._state, self._situation = state, situation
        if state is None:
            wanted, config = EXPECTED_TIME if self._load.is_in_use else CACHE_AWARE, ""
        else:
            wanted, config = state.policy_type, state.config
        read = wanted, config, self._types.revision
        if read != self._read:
            self._policy = self._types.make(wanted, config)
            self._read = read
        return self._policy

    @property
    def config(self) -> CacheAwareConfig:
        """The settings of the model's `cache_aware` policy, or their defaults. O(1)."""
        policy = self.policy
        return policy if isinstance(policy, CacheAwareConfig) else CacheAwareConfig()

    def select(
        self,
        text: str,
        *,
        tokens: float | None = None,
        exclude: Collection[str] = (),
        candidates: Collection[str] | None = None,
        salt: str = "",
        session: str = "",
        session_ttl_s: float = SESSION_TTL_S,
        held: Mapping[str, int] | None = None,
        now: float = 0.0,
    ) -> RouteDecision:
        """Choose a worker for a prompt; nothing is recorded. Never waits.

        O(text compared in C + workers), and O(workers x routers) for `expected_time`. The empty
        text goes to a worker of the least load.

        Args:
            text: the prompt.
            tokens: how many it has; None: it is guessed from its length.
            exclude: workers that are not to be chosen: they have failed this request, or a
                circuit breaker is open.
            candidates: the only ones that may be chosen; None: all of the model.
            salt: what else a cached prefix depends on: an adapter, a cache salt, a tenant. Prompts
                of different salts share nothing.
            session: the conversation or the user that the prompt is part of. It goes to the
                worker that the session was with last, on every router, as long as that one may
                be chosen; whatever the policy is, and whatever that one has to do. Empty: none.
            session_ttl_s: for so long after its last prompt a session stays; 1 to 86,400.
            held: how many characters of the prompt's beginning workers have cached, by a better
                word than the tree's, such as their own; of those that it names the tree is not
                believed. None: nobody knows better.
            now: monotonic seconds.

        Returns:
            the decision; its `worker_id` is None, and the reason `no_worker`, when the model has
            no healthy worker among the candidates.

        Raises:
            InvalidTypeError: an argument of another type.
            InvalidValueError: a text that cannot be encoded as UTF-8, tokens, a time to live or
                characters out of range.
            LimitError: a session's name over 1 KiB.
        """
        check_text("text", text)
        if tokens is not None:
            check_tokens(tokens)
        if held is not None:
            check_held(held, length=len(text))
        workers = self._may_take(exclude, candidates)
        key, sticky = text, None
        if salt or session or text[:1] == MARK or type(salt) is not str or type(session) is not str:
            key, sticky = keys_of(text, salt, session, session_ttl_s)
        if not workers:
            return RouteDecision(
                worker_id=None,
                url=None,
                matched=0,
                reason=RouteReason.NO_WORKER,
                origin=(self.model_id, key, len(text), tokens or 0.0),
                session=sticky,
            )
        policy = self.policy
        known = self._held(key, len(key) - len(text)) if policy.records else {}
        if held is not None:
            known = {name: count for name, count in {**known, **held}.items() if count}
        if tokens is None:
            tokens = len(text) / policy.characters_per_token
        bound = None if sticky is None else self._bound(sticky)
        if bound is not None and bound in workers:
            worker_id, reason = bound, RouteReason.SESSION
        else:
            worker_id, reason = self._choose(policy, text, workers, known, tokens, now)
        matched = known.get(worker_id, 0)
        return RouteDecision(
            worker_id=worker_id,
            url=workers[worker_id].url,
            matched=matched,
            reason=reason,
            origin=(self.model_id, key, len(text), tokens),
            session=sticky,
        )

    def _may_take(
        self, exclude: Collection[str], candidates: Collection[str] | None
    ) -> Mapping[str, WorkerState]:
        """Return the healthy workers of the model that the caller lets be chosen."""
        known = self._workers.of_model(self.model_id)
        if known is not self._known:
            self._note_workers(known)
        if candidates is None and exclude == ():
            return self._healthy
        return eligible(self._healthy, exclude, candidates)

    def _choose(
        self,
        policy: Policy,
        text: str,
        workers: Mapping[str, WorkerState],
        held: Mapping[str, int],
        tokens: float,
        now: float,
    ) -> tuple[str, RouteReason]:
        """Ask the policy which of the workers it is."""
        loads = self._loads(workers)
        if type(policy) is CacheAwareConfig and not policy.compat:
            # The policy of most models, without what it does not ask.
            return choose_worker(text, loads=loads, held=held, config=policy)
        return policy.choose(self._question(text, workers, loads, held, tokens, now))

    def _bound(self, sticky: tuple[str, float]) -> str | None:
        """Return the worker that a session was with last, or None after its time."""
        key, ttl_s = sticky
        return session_holder(self._trees, self.model_id, key, ttl_s=ttl_s)

    def _held(self, key: str, salt_characters: int) -> dict[str, int]:
        """Return how much of the prompt each worker holds, the salt before it not counted."""
        held = self._trees.held(self.model_id, key)
        if not salt_characters:
            return held
        return {
            name: count - salt_characters for name, count in held.items() if count > salt_characters
        }

    def _note_workers(self, known: tuple[WorkerState, ...]) -> None:
        """Keep ready what the next decisions ask, until a worker changes. O(workers)."""
        self._known = known
        self._healthy = {worker.worker_id: worker for worker in known if worker.health}
        self._reported = {name: worker.load for name, worker in self._healthy.items()}

    def _loads(self, workers: Mapping[str, WorkerState]) -> Mapping[str, float]:
        """Return what was reported of workers, and what all routers have in flight there."""
        counts = self._load.counts
        if not counts and workers is self._healthy:
            return self._reported
        return {name: worker.load + counts.get(name, 0) for name, worker in workers.items()}

    def _question(
        self,
        text: str,
        workers: Mapping[str, WorkerState],
        loads: Mapping[str, float],
        held: Mapping[str, int],
        tokens: float,
        now: float,
    ) -> Question:
        self._number += 1
        return Question(
            text=text,
            loads=loads,
            reported=self._reported,
            held=held,
            tokens=tokens,
            load=self._load,
            entries=lambda name: self._trees.entry_count_of(self.model_id, name),
            age_s=lambda name: now - self._ages.since(name),
            report_age_s=lambda name: now - self._ages.told_at(name),
            number=self._number,
            seed=self._seed,
            ring=lambda: self._ring_of(workers),
            now=now,
        )

    def _ring_of(self, names: Iterable[str]) -> ConsistentHashRing:
        wanted = tuple(sorted(names))
        if self._ring is None or self._ring[0] != wanted:
            self._ring = wanted, ConsistentHashRing(wanted)
        return self._ring[1]

    def placed(self, decision: RouteDecision, *, held: int | None = None) -> None:
        """Record everywhere that the chosen worker has taken the prompt, and will have it cached.

        Of a very long one the beginning is recorded. Nothing is where nobody was chosen, and of the
        prompt nothing where the model's policy looks at no prefix. Its session is that worker's.

        Args:
            decision: of this model.
            held: how many characters of its key the worker holds, of a decision of just now.
        """
        policy = self._policy if held is not None else self.policy
        if decision.worker_id is None:
            return
        if held is None and not self._is_worker(decision.worker_id):
            return  # it was removed meanwhile, and nobody would ever drop this
        if policy.records and decision.key:
            if held is None:
                held = self._trees.held_by(self.model_id, decision.key, decision.worker_id)
            self._place(decision.key, decision.worker_id, policy, held, policy.refresh_s)
        if decision.session is not None:
            key, ttl_s = decision.session
            held = self._trees.held_by(self.model_id, key, decision.worker_id)
            refresh_s = 0.0 if self._bound(decision.session) != decision.worker_id else ttl_s / 8
            self._place(key, decision.worker_id, policy, held, refresh_s)

    def _is_worker(self, worker_id: str) -> bool:
        worker = self._workers.get(worker_id)
        return worker is not None and worker.model_id == self.model_id

    def _place(self, key: str, worker_id: str, policy: Policy, held: int, refresh_s: float) -> None:
        self._trees.place(
            self.model_id,
            key,
            tenant=worker_id,
            held=held,
            characters_max=policy.characters_max,
            refresh_s=refresh_s,
        )

    def tree_problem(self) -> str:
        """Say that the model's tree has room for too few prompts; empty when it has not. O(1).

        Told once it is half full: what a prompt takes, beside what it shares, shows only then.
        """
        policy = self.policy
        if not policy.records or policy.characters_max >= TREE_CHARACTERS_MAX:
            return ""
        characters = self._trees.characters(self.model_id)
        count = self._trees.entry_count(self.model_id)
        room = count * policy.characters_max // max(1, characters)
        if 2 * characters < policy.characters_max or room >= TREE_PROMPTS_MIN:
            return ""
        return (
            f"the tree of model {self.model_id!r} has room for {room} of its prompts, at "
            f"{policy.characters_max:,} characters: they are forgotten before they come again; "
            f"raise max_tree_size"
        )

    def begin(self, worker_id: str) -> None:
        """Count a request that this node has sent to a worker, on top of its reported load.

        On all nodes. `MeshNode.begin` gives the request a name, and knows what it has to prefill.
        """
        if not isinstance(worker_id, str):
            raise InvalidTypeError(f"worker_id must be a string, not {type(worker_id).__name__}")
        request_id = self._load.begin(worker_id, now=self._load.latest_s)
        self._begun.setdefault(worker_id, []).append(request_id)

    def end(self, worker_id: str) -> None:
        """Count the end of a request that was begun.

        Raises:
            StateError: none was. Nothing changed.
        """
        begun = self._begun.get(worker_id)
        if not begun:
            raise StateError(f"no request to {worker_id!r} was begun")
        request_id = begun.pop()
        if not begun:
            del self._begun[worker_id]
        if self._load.has(request_id):  # it may have expired, or the worker restarted
            self._load.end(request_id, now=self._load.latest_s)

    def restore_tree_state_from_mesh(self) -> int:
        """Tell how much the tree holds: the number of texts over all workers. O(1).

        The specification's step at a start. The tree that decides *is* the replicated one, so
        there is nothing to apply: once the node has joined and holds a peer's state
        (`MeshNode.is_ready`), the policy knows what the cluster knows.
        """
        return self._trees.entry_count(self.model_id)
