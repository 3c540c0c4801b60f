"""The types of policies that a node knows, and what the configuration of each may be.

Rule: whether a policy may be written is decided here. What is stored already is never refused:
it is told as a problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from meshlib.errors import InvalidTypeError, InvalidValueError, LocalError, StateError
from meshlib.routing.cache_aware import CacheAwareConfig
from meshlib.routing.policies import POLICIES, check_policy
from meshlib.routing.protocol import Policy
from meshlib.routing.settings import parse_config
from meshlib.state import PolicyState, check_identifier, check_text

__all__ = ["PolicyTypes"]

_SHOWN_CHARACTERS_MAX = 100


def _any_text(_config: str) -> None:
    """Accept every configuration."""


def _default_policy(_config: str) -> Policy:
    return CacheAwareConfig()


class PolicyTypes:
    """The types that one node knows: those of this package, and what an application registers."""

    __slots__ = ("_checks", "_makers", "_registrations", "on_registered")

    def __init__(self) -> None:
        self.on_registered: Callable[[], None] = lambda: None
        """Called once a further type is known: what was a problem may be none any more."""
        self._checks: dict[str, Callable[[str], object]] = {
            name: partial(check_policy, name) for name in POLICIES
        }

        self._makers: dict[str, Callable[[str], Policy]] = {
            name: partial(parse_config, kind) for name, kind in POLICIES.items()
        }
        self._registrations = 0

    def names(self) -> list[str]:
        """Return the names of the known types, sorted. O(n log n)."""
        return sorted(self._checks)

    def register(
        self,
        name: str,
        *,
        check: Callable[[str], object] = _any_text,
        make: Callable[[str], Policy] | None = None,
    ) -> None:
        """Let policies of a further type be written on this node.

        Every node that is told of such policies must know the type.

        Args:
            name: the type; 1 byte to 1 KiB in UTF-8.
            check: raises a `LocalError` for a configuration that cannot be; by default all can.
            make: returns the policy that decides, from its configuration; see `Policy`. Without it
                what the type means is the application's business, and `route` goes on with the
                defaults of `cache_aware`.

        Raises:
            LocalError: a name that cannot be, or a check that cannot be called.
            StateError: the type is this package's own. Nothing changed after either.
        """
        check_identifier("policy_type", name)
        if not callable(check):
            raise InvalidTypeError("the check of a policy type must be callable")
        if make is not None and not callable(make):
            raise InvalidTypeError("what makes a policy must be callable")
        if name in POLICIES:
            raise StateError(f"{name!r} is a type of this package")
        self._checks[name] = check
        self._makers[name] = _default_policy if make is None else make
        self._registrations += 1
        self.on_registered()

    @property
    def revision(self) -> int:
        """Grows with every type that is registered: for caches."""
        return self._registrations

    def make(self, policy_type: str, config: str) -> Policy:
        """Return the policy that decides for a stored one; of an unknown type the default. O(size).

        What a configuration has that cannot hold is passed over.
        """
        maker = self._makers.get(policy_type)
        return CacheAwareConfig() if maker is None else maker(config)

    def check(self, policy_type: str, config: str) -> None:
        """Raise what is wrong with a policy; change nothing. O(size).

        Raises:
            InvalidTypeError: an argument that is not text.
            InvalidValueError: an unknown type (the known ones are named), or a configuration that
                the type does not take (the field is named).
            LocalError: whatever the check of a registered type raises.
        """
        check_identifier("policy_type", policy_type)
        check_text("config", config)
        check = self._checks.get(policy_type)
        if check is None:
            shown = policy_type[:_SHOWN_CHARACTERS_MAX]
            raise InvalidValueError(
                f"policy_type: {shown!r} is not known; known: {', '.join(self.names())}"
            )
        check(config)

    def problems(self, policies: Iterable[PolicyState]) -> list[str]:
        """Return a line for each policy that could not be written today. O(their size)."""
        lines = []
        for policy in policies:
            try:
                self.check(policy.policy_type, policy.config)
            except LocalError as error:
                lines.append(
                    f"the policy of {policy.model_id!r} holds what is not understood: {error}"
                )
        return lines
