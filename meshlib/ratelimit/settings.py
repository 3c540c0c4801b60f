"""Where rate limits are kept: in the application store, as JSON that a person can read.

Rule: the names of these keys and the form of their values are decided in this file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from meshlib.arguments import check_kind, check_text
from meshlib.errors import DecodeError, InvalidValueError, LocalError, UnknownKeyError
from meshlib.ratelimit.records import GLOBAL_KEY
from meshlib.ratelimit.rules import RULE_CONFIG_PREFIX, RuleSettings
from meshlib.replication import WriteReceipt
from meshlib.state import (
    LIMITS,
    AppStore,
    Default,
    Defaults,
    Limit,
    LimitRule,
    ReadChecks,
    check_identifier,
    check_limit,
    check_rate_key,
)

__all__ = ["GLOBAL_LIMIT_CONFIG_KEY", "LIMIT_CONFIG_PREFIX", "LimitSettings", "Slot"]

GLOBAL_LIMIT_CONFIG_KEY: Final = "global_rate_limit"
"""The configuration key of the global limit."""

LIMIT_CONFIG_PREFIX: Final = "rate_limit:"
"""What comes before a rate-limit key in its configuration key."""

_PREFIXES: Final = (GLOBAL_LIMIT_CONFIG_KEY, LIMIT_CONFIG_PREFIX, RULE_CONFIG_PREFIX)
"""How every configuration key begins that says something about limits."""

_UNREADABLE: Final = (ValueError, RecursionError, LookupError, TypeError, LocalError)
"""What reading a value may raise that is no limit."""


def _written(limit_per_second: int) -> bytes:
    return json.dumps({"limit_per_second": check_limit(limit_per_second)}).encode()


def _read(value: bytes) -> int:
    """Return the limit that a value of the application store says, or raise `_UNREADABLE`."""
    return check_limit(json.loads(value)["limit_per_second"])


class Slot(NamedTuple):
    """One of the limits that a key is under.

    Args:
        key: what it is counted under: the key itself for a window of a second, else the key and
            a mark of the period, with a zero character between.
        limit: the limit; None while the key is unlimited.
    """

    key: str
    limit: Limit | None


class LimitSettings:
    """The limits that are set: for single keys, a second, and for patterns of keys by rules.

    Args:
        app: the application store.
        defaults: what the nodes' files say of keys without one; by default nothing.
    """

    __slots__ = ("_app", "_checks", "_defaults", "_rules", "_watchers")

    def __init__(self, app: AppStore, *, defaults: Defaults | None = None) -> None:
        self._app = app
        self._defaults = defaults
        self._watchers: list[Callable[[str], None]] = []
        self._rules = RuleSettings(app, defaults=defaults)
        self._checks = ReadChecks(self._is_readable, all_keys=self.keys)
        self.watch(lambda key: self._checks.note((key,)))

    @staticmethod
    def config_key(key: str) -> str:
        """Return under which configuration key a limit is kept.

        Raises:
            InvalidTypeError: the key is no text.
        """
        check_text("key", key)
        return GLOBAL_LIMIT_CONFIG_KEY if key == GLOBAL_KEY else LIMIT_CONFIG_PREFIX + key

    def configured(self, key: str) -> int | None:
        """Return the limit of a key, in units a second; None when none is set. O(1).

        A limit that was written goes before the default of a file.

        Raises:
            DecodeError: what is kept as the limit is none.
        """
        value = self._app.get(self.config_key(key))
        if value is None:
            default = self._default(key)
            return None if default is None else int(default.value)
        try:
            return _read(value)
        except _UNREADABLE as error:
            raise DecodeError(f"the limit of {key!r} cannot be read: {error}") from error

    def default_of(self, key: str) -> str | None:
        """Return the node whose file says the limit of a key.

        None when the limit was written, or there is none. O(nodes that say it).
        """
        is_written = self._app.get(self.config_key(key)) is not None
        default = None if is_written else self._default(key)
        return None if default is None else default.node

    def _default(self, key: str) -> Default | None:
        return None if self._defaults is None else self._defaults.get(LIMITS, key)

    @staticmethod
    def check_config(config_key: str, value: bytes) -> None:
        """Raise when raw configuration is no limit and is about to be written as one. O(size).

        Keys that are kept for no limit may hold anything.

        Args:
            config_key: the configuration key.
            value: what is to be written under it.

        Raises:
            InvalidTypeError: the key is no text, or the value no bytes.
            InvalidValueError: the key is one of a limit, and the value is none. Nothing changed.
        """
        check_text("key", config_key)
        check_kind("value", value, bytes, wanted="bytes")
        RuleSettings.check_config(config_key, value)
        if config_key == LIMIT_CONFIG_PREFIX + GLOBAL_KEY:
            raise InvalidValueError(
                f"key: the limit of {GLOBAL_KEY!r} is kept under {GLOBAL_LIMIT_CONFIG_KEY!r}"
            )
        if config_key == LIMIT_CONFIG_PREFIX:
            raise InvalidValueError("key: a rate-limit key must not be empty")
        if config_key != GLOBAL_LIMIT_CONFIG_KEY and not config_key.startswith(LIMIT_CONFIG_PREFIX):
            return
        try:
            _read(value)
            unknown = sorted(set(json.loads(value)) - {"limit_per_second"})
        except _UNREADABLE as error:
            raise InvalidValueError(f"value: no limit: {error}") from error
        if unknown:
            raise InvalidValueError(f"value: no limit: unknown field {unknown[0][:100]!r}")

    def limit(self, key: str) -> int:
        """Return the limit of a key; 0 means unlimited, as the global one is until it is set.

        Raises:
            UnknownKeyError: no limit is set, and the key is not `global`.
            DecodeError: what is kept as the limit is none.
        """
        limit = self.configured(key)
        if limit is None:
            if key == GLOBAL_KEY:
                return 0
            raise UnknownKeyError("rate limit", key)
        return limit

    # Rules

    def rules(self) -> list[LimitRule]:
        """Return the rules in force, sorted by name. O(rules)."""
        return self._rules.in_order()

    def rule(self, name: str) -> LimitRule | None:
        """Return the rule in force of a name; None when there is none. O(1)."""
        return self._rules.get(check_identifier("name", name))

    def rule_of(self, key: str) -> LimitRule | None:
        """Return the rule that a key is under; None when it has a limit of its own, or none.

        Raises:
            InvalidFieldError: a key that no rule can be for; it is a ValueError.
            DecodeError: what is kept as the limit of the key is none.
        """
        check_rate_key(key)
        is_own = key == GLOBAL_KEY or self.configured(key) is not None
        return None if is_own else self._rules.index().find(key)

    def rule_default_of(self, name: str) -> str | None:
        """Return the node whose file says a rule; None when it was written, or is not there."""
        return self._rules.default_of(check_identifier("name", name))

    def set_rule(
        self, name: str, *, pattern: str, limits: str | Limit | Iterable[str | Limit]
    ) -> WriteReceipt:
        """Set limits for all keys of a pattern, everywhere; in the place of a rule of that name.

        What was used of a key stays used, where the new limits have one of the same period.

        Args:
            name: of the rule, 1 to 1,000 bytes.
            pattern: such as `tokens:{key}`; see `LimitRule`.
            limits: all of them hold at once; texts such as `100000/minute`, or `Limit`s.

        Raises:
            LocalError: a field that cannot be, which it names, or one more than 1,000 rules. State
                unchanged.
        """
        # A rule of one key is that of the rate limiter's own configuration, and never of `global`.
        return self._rules.set(LimitRule(name, pattern=pattern, limits=limits))

    def remove_rule(self, name: str) -> WriteReceipt:
        """Remove a rule, everywhere; a file's rule of that name is in force again.

        Raises:
            UnknownKeyError: none was written. State unchanged.
        """
        return self._rules.remove(name)

    def is_set(self, key: str) -> bool:
        """Tell whether a key has a limit of its own, or is under a rule. O(parts of patterns).

        Raises:
            InvalidFieldError, DecodeError: as `slots`.
        """
        return self.configured(key) is not None or self.rule_of(key) is not None

    def slots(self, key: str) -> tuple[Slot, ...]:
        """Return the limits that a key is under. O(parts of patterns).

        A limit of its own goes before rules. Without any the global key is unlimited.

        Raises:
            UnknownKeyError: no limit is set, and the key is not `global`.
            InvalidFieldError: a key that no limit can be for; it is a ValueError.
            DecodeError: what is kept as the limit is none.
        """
        check_text("key", key)
        limit = self.configured(key)
        if limit is not None or key == GLOBAL_KEY:
            return (Slot(key, Limit(limit) if limit else None),)
        index = self._rules.index(is_judged=True)  # by what has just been read
        if index.rules:
            rule = index.find(check_rate_key(key))
            if rule is not None:
                return tuple(Slot(_counted_under(key, limit), limit) for limit in rule.limits)
        raise UnknownKeyError("rate limit", key)

    def slot_limit(self, key: str) -> Limit | None:
        """Return the limit that is counted under a key; None while it is unlimited.

        Args:
            key: as a `Slot` has it.

        Raises:
            UnknownKeyError: none is, any more.
            InvalidFieldError, DecodeError: as `slots`.
        """
        check_text("key", key)
        for slot in self.slots(key.partition("\0")[0]):
            if slot.key == key:
                return slot.limit
        raise UnknownKeyError("rate limit", key)

    def set(self, key: str, limit_per_second: int) -> WriteReceipt:
        """Set the limit of a key, everywhere.

        Args:
            key: `global`, or any other key of up to 1,013 bytes.
            limit_per_second: units for the whole cluster; 0 switches the limit off.

        Raises:
            LocalError: a key or a limit that cannot be. State unchanged.
        """
        check_identifier("key", key)
        return self._app.set(self.config_key(key), _written(limit_per_second))

    def remove(self, key: str) -> WriteReceipt:
        """Remove the limit of a key, everywhere; a file's default is in force again.

        Raises:
            UnknownKeyError: none was written. State unchanged.
        """
        check_identifier("key", key)
        if self._app.get(self.config_key(key)) is None:
            raise UnknownKeyError("rate limit", key)
        return self._app.delete(self.config_key(key))

    def keys(self) -> list[str]:
        """Return the keys that have a limit, sorted. O(n log n)."""
        names = self._app.keys()
        keys = set() if self._defaults is None else set(self._defaults.keys(LIMITS))
        keys |= {
            name.removeprefix(LIMIT_CONFIG_PREFIX)
            for name in names
            if name.startswith(LIMIT_CONFIG_PREFIX) and _limit_key(name) != GLOBAL_KEY
        }
        if GLOBAL_LIMIT_CONFIG_KEY in names:
            keys.add(GLOBAL_KEY)
        return sorted(keys)

    def note_changes(self, names: Iterable[Any] | None) -> None:
        """Take note that configuration keys have changed by what peers sent; None for all."""
        if names is None:
            self._rules.note_changes(None)
            self._checks.note(None)
            for watcher in self._watchers:
                watcher(GLOBAL_KEY)
            return
        # Most of what changes in this document is no limit: one look at each name.
        named = [name for name in names if isinstance(name, str) and name.startswith(_PREFIXES)]
        if not named:
            return
        self._rules.note_changes(named)
        for watcher in self._watchers:
            for name in named:
                watcher(_limit_key(name) or name)
        found = [key for name in named if (key := _limit_key(name)) is not None]
        if found:
            self._checks.note(found)

    def unreadable(self) -> list[str]:
        """Return the rate-limit keys whose limits cannot be read. O(changes since then)."""
        unreadable = (repr(key) for key in self._checks.unreadable())
        return sorted((*unreadable, *self._rules.unreadable()))

    def _is_readable(self, key: str) -> bool:
        try:
            self.configured(key)
        except DecodeError:
            return False
        return True

    def tag(self) -> int:
        """Return a number that is another one once any limit may be different."""
        return sum(self._rules.revision()) << 64 | self._app.tag()

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Call `watcher` with the rate-limit key after each change of a limit, here or by a peer.

        With a rule's configuration key after a change of a rule, which may be for any key, and
        with `global` when all may be different.
        """

        def translate(name: str) -> None:
            key = name if name.startswith(RULE_CONFIG_PREFIX) else _limit_key(name)
            if key is not None:
                watcher(key)

        self._app.watch(translate)
        self._watchers.append(watcher)


def _counted_under(key: str, limit: Limit) -> str:
    return key if limit.code == "1" else f"{key}\0{limit.code}"


def _limit_key(name: str) -> str | None:
    """Return whose limit a configuration key holds; None when it holds none."""
    if name == GLOBAL_LIMIT_CONFIG_KEY:
        return GLOBAL_KEY
    return name.removeprefix(LIMIT_CONFIG_PREFIX) if name.startswith(LIMIT_CONFIG_PREFIX) else None
