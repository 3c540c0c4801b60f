"""What a node may decide before it is ready.

Rule this file owns: a node never decides on what it does not know. Until it holds what its cluster
holds, or has begun itself, a limit that is not here yet is not "no limit", and workers that are not
here yet are not "no workers". The rule stands before whichever limiter and policy are in force, and
asks neither: it looks at what is kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from attrs import field, frozen

from meshlib.arguments import checked_types
from meshlib.errors import ConfigError, NotReadyError
from meshlib.ratelimit import GLOBAL_KEY, Decision, LimitSettings

__all__ = ["UNKNOWN_YET", "Startup", "StartupConfig", "StartupMode"]

RETRY_AFTER_S: Final = 1.0
"""When a caller should ask again, in seconds. A node is ready after a fraction of a second as a
rule, and waits `bootstrap_after_s` where nobody answers it."""

UNKNOWN_YET: Final = Decision(True, 0, -1, 0.0)
"""An admission before the limit is known, where `StartupConfig.acquire` is `open`."""


class StartupMode(StrEnum):
    """What a node decides whose cluster's state has not come yet."""

    CLOSED = "closed"
    """Nothing: it says that it is not ready."""

    OPEN = "open"
    """As if what is here were all there is."""


def _mode_of(setting: str, mode: str) -> StartupMode:
    try:
        return StartupMode(mode)
    except ValueError:
        known = ", ".join(StartupMode)
        raise ConfigError(f"{setting} must be one of {known}, got {mode!r}") from None


def _acquire_mode(mode: str) -> StartupMode:
    return _mode_of("acquire", mode)


def _route_mode(mode: str) -> StartupMode:
    return _mode_of("route", mode)


@frozen(slots=True, kw_only=True, field_transformer=checked_types)
class StartupConfig:
    """What a node decides before it is ready.

    Args:
        acquire: `closed` refuses to decide for a key whose limit is not known here; `open` admits
            what it is asked for. A limit that is known is in force in either.
        route: `closed` chooses no worker; `open` chooses among those that are known here.
    """

    acquire: StartupMode = field(default=StartupMode.CLOSED, converter=_acquire_mode)
    route: StartupMode = field(default=StartupMode.CLOSED, converter=_route_mode)


class Startup:
    """Judges what one node may decide now.

    Args:
        config: the settings.
        limits: the limits that are known here.
        is_ready: whether the node holds what its cluster holds, or has begun itself.
        problem: says in one line why it is not.
    """

    __slots__ = ("_is_ready", "_limits", "_problem", "config")

    def __init__(
        self,
        config: StartupConfig,
        *,
        limits: LimitSettings,
        is_ready: Callable[[], bool],
        problem: Callable[[], str],
    ) -> None:
        self.config: Final = config
        self._limits = limits
        self._is_ready = is_ready
        self._problem = problem

    def decide(self, key: str, *, cost: int = 1) -> Decision | None:
        """Decide in the place of the limiter, or leave it to the limiter. O(1).

        Args:
            key: the rate-limit key.
            cost: the request's units.

        Returns:
            None where the limiter decides: the node is ready, the limit is known here, or the
            arguments are such as the limiter refuses. An admission where `acquire` is `open`.

        Raises:
            NotReadyError: the limit is not known here yet. Nothing was counted.
            InvalidFieldError: a key that no limit can be for.
            DecodeError: what is kept as the limit is none.
        """
        if self._is_ready() or type(key) is not str or type(cost) is not int or cost < 1:
            return None
        if self._limits.is_set(key):
            return None
        if self.config.acquire is StartupMode.OPEN:
            return UNKNOWN_YET
        raise self._not_ready(_limit_of(key))

    def still_to_decide(self, costs: Mapping[str, int]) -> dict[str, int]:
        """Return what is left to the limiter of a request for several keys; as `decide`. O(keys).

        Args:
            costs: units by rate-limit key.

        Raises:
            NotReadyError, DecodeError, InvalidFieldError: as `decide`.
        """
        return {key: cost for key, cost in costs.items() if self.decide(key, cost=cost) is None}

    def check_limit(self, key: str) -> None:
        """Refuse to tell of a limit that is not here yet. O(1).

        Raises:
            NotReadyError: it may come with the state of the cluster.
            DecodeError: what is kept as the limit is none.
        """
        if self._is_ready() or type(key) is not str:
            return
        if not self._limits.is_set(key):
            raise self._not_ready(_limit_of(key))

    def check_route(self) -> None:
        """Refuse to choose a worker while it is not known which there are. O(1).

        Raises:
            NotReadyError: `route` is `closed`, and the node is not ready. Nothing was placed.
        """
        if not self._is_ready() and self.config.route is StartupMode.CLOSED:
            raise self._not_ready("which workers there are")

    def check_absence(self, what: str) -> None:
        """Refuse to say of something that it is not there, before that can be known. O(1).

        Args:
            what: what was asked for, as the subject of "is not known here yet".

        Raises:
            NotReadyError: it may come with the state of the cluster.
        """
        if not self._is_ready():
            raise self._not_ready(what)

    def _not_ready(self, what: str) -> NotReadyError:
        return NotReadyError(what=what, story=(self._problem(),), retry_after_s=RETRY_AFTER_S)


def _limit_of(key: str) -> str:
    return "the global rate limit" if key == GLOBAL_KEY else f"the rate limit {key[:100]!r}"
