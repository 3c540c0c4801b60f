"""Where rules are kept: in the application store, as JSON that a person can read.

Rule: the names of these keys and the form of their values are decided in this file. A rule that was
written goes before one of the same name in a file, whatever either says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from meshlib.errors import InvalidValueError, LimitError, LocalError, UnknownKeyError
from meshlib.limits import LIMIT_RULES_MAX
from meshlib.replication import WriteReceipt
from meshlib.state import (
    RULES,
    AppStore,
    Default,
    Defaults,
    LimitRule,
    ReadChecks,
    RuleIndex,
    check_identifier,
)

__all__ = ["RULE_CONFIG_PREFIX", "RuleSettings"]

RULE_CONFIG_PREFIX: Final = "rate_limit_rule:"
"""What comes before the name of a rule in its configuration key."""

_UNREADABLE: Final = (ValueError, RecursionError, LookupError, TypeError, LocalError)
"""What reading a value may raise that is no rule."""


def _written(rule: LimitRule) -> bytes:
    tree = {"pattern": rule.pattern, "limits": [str(limit) for limit in rule.limits]}
    return json.dumps(tree).encode()


def _read(name: str, value: bytes) -> LimitRule:
    """Return the rule that a value of the application store says, or raise `_UNREADABLE`."""
    tree = json.loads(value)
    return LimitRule(name, pattern=tree["pattern"], limits=tree["limits"])


class RuleSettings:
    """The rules that are set, by name.

    Args:
        app: the application store.
        defaults: what the nodes' files say of names that nobody has written.
    """

    __slots__ = ("_app", "_checks", "_defaults", "_index", "_index_of", "_revision")

    def __init__(self, app: AppStore, *, defaults: Defaults | None) -> None:
        self._app = app
        self._defaults = defaults
        self._checks = ReadChecks(self._is_readable, all_keys=self._written_names)
        self._index = RuleIndex(())
        self._index_of: tuple[int, int] | None = None
        self._revision = 0
        app.watch(lambda key: self.note_changes((key,)))

    def revision(self) -> tuple[int, int]:
        """Return what is another one once any rule may be different. O(1)."""
        return self._revision, 0 if self._defaults is None else self._defaults.revision

    def index(self, *, is_judged: bool = False) -> RuleIndex:
        """Return the rules in force. O(1); O(configuration keys) after a change of rules.

        Args:
            is_judged: whether this use was judged: by thread, and after the end.
        """
        if not is_judged:
            len(self._app)
        revision = self.revision()
        if self._index_of != revision:
            rules = (self._in_force(name) for name in self._names())
            self._index = RuleIndex(rule for rule in rules if rule is not None)
            self._index_of = revision
        return self._index

    def get(self, name: str) -> LimitRule | None:
        """Return the rule of a name; None when there is none that can be read. O(1)."""
        return self.index().rules.get(name)

    def in_order(self) -> list[LimitRule]:
        """Return the rules in force, sorted by name. O(rules)."""
        return list(self.index().rules.values())

    def default_of(self, name: str) -> str | None:
        """Return the node whose file says a rule; None when it was written, or is not there."""
        default = None if self._value(name) is not None else self._default(name)
        return None if default is None else default.node

    def set(self, rule: LimitRule) -> WriteReceipt:
        """Write a rule, everywhere. What was used of a limit that stays in its period stays used.

        Raises:
            LimitError: one more than 1,000 rules. State unchanged.
        """
        if self._value(rule.name) is None:
            count = len(self._written_names())
            if count >= LIMIT_RULES_MAX:
                raise LimitError("rate-limit rules", size=count + 1, limit=LIMIT_RULES_MAX)
        return self._app.set(RULE_CONFIG_PREFIX + rule.name, _written(rule))

    def remove(self, name: str) -> WriteReceipt:
        """Remove a rule, everywhere; a file's rule of that name is in force again.

        Raises:
            UnknownKeyError: none was written. State unchanged.
        """
        check_identifier("name", name)
        if self._value(name) is None:
            raise UnknownKeyError("rate-limit rule", name)
        return self._app.delete(RULE_CONFIG_PREFIX + name)

    @staticmethod
    def check_config(config_key: str, value: bytes) -> None:
        """Raise when raw configuration is no rule and is about to be written as one. O(size)."""
        if not config_key.startswith(RULE_CONFIG_PREFIX):
            return
        try:
            _read(config_key.removeprefix(RULE_CONFIG_PREFIX), value)
            unknown = sorted(set(json.loads(value)) - {"pattern", "limits"})
        except _UNREADABLE as error:
            raise InvalidValueError(f"value: no rule: {error}") from error
        if unknown:
            raise InvalidValueError(f"value: no rule: unknown field {unknown[0][:100]!r}")

    def note_changes(self, names: Iterable[Any] | None) -> None:
        """Take note that configuration keys have changed; None for all."""
        if names is None:
            self._checks.note(None)
            self._revision += 1
            return
        found = [
            name.removeprefix(RULE_CONFIG_PREFIX)
            for name in names
            if isinstance(name, str) and name.startswith(RULE_CONFIG_PREFIX)
        ]
        if found:
            self._checks.note(found)
            self._revision += 1

    def unreadable(self) -> list[str]:
        """Return the names of the rules that cannot be read. O(changes since then)."""
        return sorted(f"rule {name!r}" for name in self._checks.unreadable())

    def _in_force(self, name: str) -> LimitRule | None:
        value = self._value(name)
        if value is None:
            default = self._default(name)
            return None if default is None else default.value
        try:
            return _read(name, value)
        except _UNREADABLE:
            return None  # the health tells of it

    def _value(self, name: str) -> bytes | None:
        return self._app.get(RULE_CONFIG_PREFIX + name)

    def _default(self, name: str) -> Default | None:
        return None if self._defaults is None else self._defaults.get(RULES, name)

    def _written_names(self) -> list[str]:
        names = self._app.keys()
        return [
            name.removeprefix(RULE_CONFIG_PREFIX)
            for name in names
            if name.startswith(RULE_CONFIG_PREFIX)
        ]

    def _names(self) -> frozenset[str]:
        said = () if self._defaults is None else self._defaults.keys(RULES)
        return frozenset((*self._written_names(), *said))

    def _is_readable(self, name: str) -> bool:
        value = self._value(name)
        if value is None:
            return True
        try:
            _read(name, value)
        except _UNREADABLE:
            return False
        return True
