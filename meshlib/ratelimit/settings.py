"""Where rate limits are kept: in the application store, as JSON that a person can read.

Rule: the names of these keys and the form of their values are decided in this file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

from meshlib.arguments import check_kind, check_text
from meshlib.errors import DecodeError, InvalidValueError, LocalError, UnknownKeyError
from meshlib.ratelimit.records import GLOBAL_KEY
from meshlib.replication import WriteReceipt
from meshlib.state import (
    LIMITS,
    AppStore,
    Default,
    Defaults,
    ReadChecks,
    check_identifier,
    check_limit,
)

__all__ = ["GLOBAL_LIMIT_CONFIG_KEY", "LIMIT_CONFIG_PREFIX", "LimitSettings"]

GLOBAL_LIMIT_CONFIG_KEY: Final = "global_rate_limit"
"""The configuration key of the global limit."""

LIMIT_CONFIG_PREFIX: Final = "rate_limit:"
"""What comes before a rate-limit key in its configuration key."""

_UNREADABLE: Final = (ValueError, RecursionError, LookupError, TypeError, LocalError)
"""What reading a value may raise that is no limit."""


def _written(limit_per_second: int) -> bytes:
    return json.dumps({"limit_per_second": check_limit(limit_per_second)}).encode()


def _read(value: bytes) -> int:
    """Return the limit that a value of the application store says, or raise `_UNREADABLE`."""
    return check_limit(json.loads(value)["limit_per_second"])


class LimitSettings:
    """The limits that are set, by rate-limit key.

    Args:
        app: the application store.
        defaults: what the nodes' files say of keys without one; by default nothing.
    """

    __slots__ = ("_app", "_checks", "_defaults")

    def __init__(self, app: AppStore, *, defaults: Defaults | None = None) -> None:
        self._app = app
        self._defaults = defaults
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
            self._checks.note(None)
            return
        keys = [_limit_key(name) for name in names if isinstance(name, str)]
        found = [key for key in keys if key is not None]
        if found:
            self._checks.note(found)

    def unreadable(self) -> list[str]:
        """Return the rate-limit keys whose limits cannot be read. O(changes since then)."""
        return sorted(repr(key) for key in self._checks.unreadable())

    def _is_readable(self, key: str) -> bool:
        try:
            self.configured(key)
        except DecodeError:
            return False
        return True

    def tag(self) -> int:
        """Return a number that is another one once any limit may be different."""
        revision = 0 if self._defaults is None else self._defaults.revision
        return revision << 64 | self._app.tag()

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Call `watcher` with the rate-limit key after each change of a limit made here."""

        def translate(name: str) -> None:
            key = _limit_key(name)
            if key is not None:
                watcher(key)

        self._app.watch(translate)


def _limit_key(name: str) -> str | None:
    """Return whose limit a configuration key holds; None when it holds none."""
    if name == GLOBAL_LIMIT_CONFIG_KEY:
        return GLOBAL_KEY
    return name.removeprefix(LIMIT_CONFIG_PREFIX) if name.startswith(LIMIT_CONFIG_PREFIX) else None
