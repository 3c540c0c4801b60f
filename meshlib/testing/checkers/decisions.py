"""What a node decides before it knows, and what is in force: looked at after every few events.

Rule: this checker reads what is written in the node's maps, and asks the node what it would decide.
It changes nothing: what it asks of a node that is not ready must be refused, and is not asked of a
node that is ready.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from meshlib.codec import decode_value
from meshlib.errors import MeshError, NotReadyError
from meshlib.ratelimit import GLOBAL_KEY
from meshlib.startup import StartupMode
from meshlib.testing.checkers import inside
from meshlib.testing.checkers.sometimes import Sometimes
from meshlib.testing.checkers.watch import Broken
from meshlib.testing.world.hosts import Host

__all__ = ["UNKNOWN_KEY", "Decisions"]

UNKNOWN_KEY: Final = "nobody-limits-this"
"""A rate-limit key of which no file says anything, and that no workload writes."""

READY_PERIOD: Final = 8
"""Every how many events a ready node is looked at; one that is not, after each."""


@lru_cache(maxsize=1024)
def _config_of(payload: bytes) -> Any:
    """Return the configuration in a written policy: all nodes have the same few."""
    return decode_value(payload)["config"]


class Decisions:
    """Follows every process of a run.

    Args:
        sometimes: counts what was seen.
    """

    __slots__ = ("_events", "_sometimes")

    def __init__(self, sometimes: Sometimes) -> None:
        self._events = 0
        self._sometimes = sometimes

    def after_event(self, host: Host, *, local: float) -> None:
        """Look at what a node would decide now.

        Args:
            host: where it runs.
            local: what the machine's monotonic clock shows.

        Raises:
            Broken: it decides what it cannot know, or by a file in the place of an operator.
        """
        self._events += 1
        if not host.node.is_ready:
            self._look_at_unready(host.node, local)
        elif self._events % READY_PERIOD:
            return
        self._look_at_policies(host.node)

    def _look_at_unready(self, node: Any, local: float) -> None:
        """Look whether what is not known is refused, or decided where the settings say so.

        Where they open the choice of a worker nothing is asked: a choice would be recorded.
        """
        done, total = node.replica.arrived()
        self._sometimes.count("seen_before_it_was_joined", int(0 < done < total))
        modes, decisions = node.config.startup, {}
        if modes.acquire is StartupMode.OPEN:
            self._look_at_open(node, local)
        else:
            decisions["admits"] = lambda: node.acquire(UNKNOWN_KEY, now=local)
        if modes.route is StartupMode.CLOSED:
            decisions["routes"] = lambda: node.route("model", "text")
        self._refuse(decisions)

    def _refuse(self, decisions: dict[str, Callable[[], object]]) -> None:
        for what, decide in decisions.items():
            try:
                answer = decide()
            except NotReadyError:
                self._sometimes.count("refused_before_ready", 1)
                continue
            except MeshError as error:
                answer = error
            raise Broken("early decision", f"it is not ready, and {what}: {answer!r}")

    def _look_at_open(self, node: Any, local: float) -> None:
        """Look whether a node that may decide so admits what it knows no limit of, and only that.

        Raises:
            Broken: it refuses, or passes over a limit that it knows.
        """
        answer = node.acquire(UNKNOWN_KEY, now=local)
        if not answer.allowed or answer.limit:
            raise Broken("early decision", f"it is open, and answers {answer!r}")
        self._sometimes.count("decided_openly", 1)
        is_known = node.sync.limits.configured(GLOBAL_KEY) is not None
        if is_known and node.startup.decide(GLOBAL_KEY) is not None:
            raise Broken("early decision", "it is open, and passes over the limit that it knows")

    def _look_at_policies(self, node: Any) -> None:
        """Look whether each model has the policy that was written, and else a file's."""
        state = inside.find_state(node, "policies")
        written = {} if state is None else inside.map_entries(state)
        for key, entry in written.items():
            policy = node.sync.get_policy_state(key)
            if entry.payload is None:
                if policy is not None and policy.default_of is None:
                    raise Broken("file and operator", f"{key} was removed, and is {policy}")
                self._sometimes.count("default_came_back", int(policy is not None))
                continue
            config = _config_of(entry.payload)
            if policy is None or (policy.default_of, policy.config) != (None, config):
                raise Broken("file and operator", f"{key} was written, and is {policy}")
            said = node.sync.defaults.get("policies", key)
            self._sometimes.count("operator_beat_a_file", int(said is not None))
