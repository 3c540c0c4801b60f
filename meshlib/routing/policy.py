"""Cache-aware routing: which worker has the most of a prompt cached, and may take it.

Rule: two nodes with equal state choose the same worker. Nothing here depends on which node it
is, on chance, on an order of insertion, or on time; what is known on one node alone (requests it
has begun itself) counts only when the caller says so by `begin` and `end`.
Source: the cache-aware policy of sglang's router, with its faults left out: unhealthy workers do
not count for the balance, ties do not all go to the first worker, and a holder that cannot take
a request is replaced by the next best holder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import field, frozen

from meshlib.arguments import checked_types
from meshlib.errors import ConfigError, InvalidTypeError, InvalidValueError, StateError
from meshlib.limits import TREE_CHARACTERS_MAX
from meshlib.ring import rendezvous
from meshlib.routing.records import RouteDecision, RouteReason
from meshlib.routing.trees import TreeSync
from meshlib.state import PolicyStore, WorkerStore, check_text

__all__ = ["CACHE_AWARE", "CacheAwareConfig", "CacheAwarePolicy", "choose_worker"]

CACHE_AWARE: Final = "cache_aware"
"""The policy type whose configuration this module reads."""

LOAD_TOLERANCE: Final = 1.25
"""Workers of up to this many times the least load count as least loaded for a prompt that nobody
holds. Loads are reported now and then: were they taken to the letter, all such prompts would go
to one worker until the next report."""

HASHED_CHARACTERS: Final = 256
"""Characters past what is already cached that decide where a new prompt goes."""


@frozen(slots=True, kw_only=True, field_transformer=checked_types)
class CacheAwareConfig:
    """Settings of a cache-aware policy, under the specification's names.

    Args:
        cache_threshold: part of the text that must be cached, strictly more, for the cache to
            decide; 0 to 1.
        balance_abs_threshold: loads further apart than this, and
        balance_rel_threshold: by more than this factor, are out of balance; both 0 or more.
        eviction_interval_secs: how stale the recorded last use of a text may be, in seconds;
            what is used more often is recorded again only so often. 0 switches off eviction by
            `max_tree_size`.
        max_tree_size: characters that the tree of the model may hold, over all workers; what
            prompts share counts once. Of a longer prompt its beginning of that size is recorded.

    Raises:
        InvalidTypeError: a setting of another type.
        ConfigError: one out of its range.
    """

    cache_threshold: float = field(default=0.3)
    balance_abs_threshold: float = field(default=64.0)
    balance_rel_threshold: float = field(default=1.5)
    eviction_interval_secs: float = field(default=60.0)
    max_tree_size: int = field(default=TREE_CHARACTERS_MAX)

    def __attrs_post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: names the setting and what it must be.
        """
        for name, holds in _FIELDS.items():
            if not holds(getattr(self, name)):
                raise ConfigError(f"{name} must be {_RANGES[name]}, got {getattr(self, name)}")

    @classmethod
    def parse(cls, config: str) -> CacheAwareConfig:
        """Read the JSON object of a policy's configuration. O(size); never raises.

        A field that is missing or cannot hold keeps its default, and so do all when the text is
        no JSON object; fields that are not known are passed over.
        """
        try:
            tree = json.loads(config)
        except (ValueError, RecursionError):
            return cls()
        if not isinstance(tree, dict):
            return cls()
        return cls(**{name: tree[name] for name, holds in _FIELDS.items() if holds(tree.get(name))})

    @classmethod
    def check(cls, config: str) -> CacheAwareConfig:
        """Read a configuration that somebody is about to write. O(size).

        The empty text, `{}` and the specification's `...` are the defaults.

        Raises:
            InvalidValueError: no JSON object, a field that is not known or there twice, or a value
                that is of another type or out of its range. Names the field as `config.NAME`.
        """
        if config.strip() in _DEFAULTS:
            return cls()
        try:
            tree = json.loads(config, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            raise InvalidValueError(f"config: not valid JSON: {error}") from None
        if not isinstance(tree, dict):
            raise InvalidValueError("config: expected a JSON object")
        for name, value in tree.items():
            if name not in _FIELDS:
                known = ", ".join(_FIELDS)
                raise InvalidValueError(f"config.{_shown(name)}: unknown; known: {known}")
            if not _FIELDS[name](value):
                raise InvalidValueError(
                    f"config.{name}: expected {_RANGES[name]}, got {_shown(json.dumps(value))}"
                )
        return cls(**tree)

    @property
    def characters_max(self) -> int:
        """How many characters the model's tree may hold."""
        if self.eviction_interval_secs == 0:
            return TREE_CHARACTERS_MAX
        return self.max_tree_size

    @property
    def refresh_s(self) -> float:
        """How old the recorded last use of a text may become before it is recorded again."""
        return self.eviction_interval_secs or 60.0


def _is_number(value: Any, maximum: float = math.inf) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= maximum and value < math.inf


def _is_size(value: Any) -> bool:
    return type(value) is int and 1 <= value <= TREE_CHARACTERS_MAX


_FIELDS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "cache_threshold": lambda value: _is_number(value, 1.0),
    "balance_abs_threshold": _is_number,
    "balance_rel_threshold": _is_number,
    "eviction_interval_secs": _is_number,
    "max_tree_size": _is_size,
}

_RANGES: Final[Mapping[str, str]] = {
    "cache_threshold": "a number from 0 to 1",
    "balance_abs_threshold": "a number of 0 or more",
    "balance_rel_threshold": "a number of 0 or more",
    "eviction_interval_secs": "a number of 0 or more",
    "max_tree_size": f"an integer from 1 to {TREE_CHARACTERS_MAX}",
}

_DEFAULTS: Final = frozenset({"", "..."})
"""Texts that are no JSON and stand for the defaults; the second is the specification's."""

_SHOWN_CHARACTERS_MAX: Final = 100


def _shown(text: str) -> str:
    """Return a text from outside, short enough for a line."""
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else text[:_SHOWN_CHARACTERS_MAX] + "..."


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a field is there twice")
    return tree


def choose_worker(
    text: str,
    *,
    loads: Mapping[str, float],
    held: Mapping[str, int],
    config: CacheAwareConfig,
) -> tuple[str, RouteReason]:
    """Choose among healthy workers; pure. O(workers log workers + hashed text).

    Args:
        text: the prompt.
        loads: the healthy workers of the model, with their loads; at least one.
        held: for anybody who holds a prefix of the text, characters of the longest.
        config: the policy's settings.

    Returns:
        a worker of `loads`, and why it.
    """
    if len(loads) == 0:
        raise StateError("there is no worker to choose from")
    least = min(loads.values())
    most = max(loads.values())
    shared = max(held.values(), default=0)
    spread_key = text[: shared + HASHED_CHARACTERS]
    is_apart = most - least > config.balance_abs_threshold
    if is_apart and most > least * config.balance_rel_threshold:
        return _spread(spread_key, loads, least), RouteReason.IMBALANCE
    enough = config.cache_threshold * len(text)
    longest = max((held[name] for name in loads if name in held), default=0)
    if longest > enough:
        holders = {name: load for name, load in loads.items() if held.get(name) == longest}
        least = min(holders.values())
        return _spread(spread_key, holders, least), RouteReason.PREFIX_MATCH
    reason = RouteReason.HOLDER_UNAVAILABLE if shared > enough else RouteReason.NO_MATCH
    return _spread(spread_key, loads, least * LOAD_TOLERANCE), reason


def _spread(key: str, loads: Mapping[str, float], load_max: float) -> str:
    candidates = [name for name, load in loads.items() if load <= load_max]
    return candidates[0] if len(candidates) == 1 else rendezvous(key, candidates)[0]


class CacheAwarePolicy:
    """Routes the prompts of one model by what its workers have cached.

    The tree is the replicated one: what any node places is known to all, and a restarted node
    knows it again as soon as it has the state of a peer.

    Args:
        model_id: the model.
        workers: the workers of all models.
        policies: the policies of all models; this model's, when it is `cache_aware`, sets the
            thresholds, and a change of it counts from the next decision on.
        trees: the routing trees of all models.
    """

    def __init__(
        self, model_id: str, *, workers: WorkerStore, policies: PolicyStore, trees: TreeSync
    ) -> None:
        self.model_id = model_id
        self._workers = workers
        self._policies = policies
        self._trees = trees
        self._begun: dict[str, int] = {}
        self._config = CacheAwareConfig()
        self._config_text: str | None = None

    @property
    def config(self) -> CacheAwareConfig:
        """The settings in force: those of the model's policy, or the defaults. O(1)."""
        policy = self._policies.get(self.model_id)
        text = None
        if policy is not None and policy.policy_type == CACHE_AWARE:
            text = policy.config
        if text != self._config_text:
            self._config = CacheAwareConfig() if text is None else CacheAwareConfig.parse(text)
            self._config_text = text
        return self._config

    def select(self, text: str) -> RouteDecision:
        """Choose a worker for a prompt, and record everywhere that it will have it cached.

        Never waits. O(text compared in C + workers). The empty text goes to a worker of the
        least load, and is not recorded.

        Args:
            text: the prompt; of a very long one the beginning is recorded.

        Returns:
            the decision; its `worker_id` is None, and the reason `no_worker`, when the model has
            no healthy worker.

        Raises:
            InvalidTypeError: the text is no `str`.
            InvalidValueError: it cannot be encoded as UTF-8. Nothing was changed.
        """
        check_text("text", text)
        workers = {
            worker.worker_id: worker
            for worker in self._workers.of_model(self.model_id)
            if worker.health
        }
        if not workers:
            return RouteDecision(worker_id=None, url=None, matched=0, reason=RouteReason.NO_WORKER)
        begun = self._begun
        loads = {name: worker.load + begun.get(name, 0) for name, worker in workers.items()}
        held = self._trees.held(self.model_id, text)
        config = self.config
        worker_id, reason = choose_worker(text, loads=loads, held=held, config=config)
        self._trees.place(
            self.model_id,
            text,
            tenant=worker_id,
            held=held.get(worker_id, 0),
            characters_max=config.characters_max,
            refresh_s=config.refresh_s,
        )
        return RouteDecision(
            worker_id=worker_id,
            url=workers[worker_id].url,
            matched=held.get(worker_id, 0),
            reason=reason,
        )

    def begin(self, worker_id: str) -> None:
        """Count a request that this node has sent to a worker, on top of its reported load.

        For a router whose workers report no load, or seldom; nodes then may decide differently.
        """
        if not isinstance(worker_id, str):
            raise InvalidTypeError(f"worker_id must be a string, not {type(worker_id).__name__}")
        self._begun[worker_id] = self._begun.get(worker_id, 0) + 1

    def end(self, worker_id: str) -> None:
        """Count the end of a request that was begun.

        Raises:
            StateError: none was. Nothing changed.
        """
        count = self._begun.get(worker_id, 0)
        if count == 0:
            raise StateError(f"no request to {worker_id!r} was begun")
        if count == 1:
            del self._begun[worker_id]
        else:
            self._begun[worker_id] = count - 1

    def restore_tree_state_from_mesh(self) -> int:
        """Tell how much the tree holds: the number of texts over all workers. O(1).

        The specification's step at a start. The tree that decides *is* the replicated one, so
        there is nothing to apply: once the node has joined and holds a peer's state
        (`MeshNode.is_ready`), the policy knows what the cluster knows.
        """
        return self._trees.entry_count(self.model_id)
