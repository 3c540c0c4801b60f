"""Defaults: what the files of the nodes say, for whatever nobody has written.

Rules this file owns:
- What a file says is a fact of the node that read it, under that node's name and in a document of
  its own. It is no write of the key that it is about: a written value is in force whatever any file
  says, in whichever order nodes start and whatever their clocks show, and once it is removed the
  default is in force again.
- Of several files the one of the node that started last is in force for each key, by the hybrid
  time at which that node said it first. A node says it once it is ready: its clock is then past all
  that the others have said, so that the order is that of the starts.
- No fact counts as of later than it was written, and what is stamped ahead of the tolerance is not
  taken from anybody: a clock that is ahead gives a file no more than the tolerance, and none at all
  over the files of nodes that start once they have seen it.
- Until a node is ready its own file is in force on it alone, before those of the others.
- Each node keeps its own fact as its file has it, should anybody have removed it: whoever is gone
  for long loses its fact to one of the others, and says it again when it was only out of reach.

A fact is an ordinary entry of an ordinary map, so all that holds of replication holds of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from attrs import field, frozen

from meshlib.arguments import check_kind
from meshlib.codec import encode_value
from meshlib.crdt import LWWMap
from meshlib.errors import InvalidFieldError, InvalidTypeError, LimitError, UnknownKeyError
from meshlib.limits import LIMIT_RULES_MAX
from meshlib.state.documents import Documents, RecordTable, stored_field
from meshlib.state.limit_rule import LimitRule
from meshlib.state.records import check_identifier, check_limit, check_text

__all__ = [
    "DEFAULTS_DOCUMENT",
    "LIMITS",
    "POLICIES",
    "RULES",
    "ConfiguredDefaults",
    "Default",
    "DefaultKey",
    "Defaults",
]

DEFAULTS_DOCUMENT: Final = "mesh:defaults"

POLICIES: Final = "policies"
LIMITS: Final = "limits"
RULES: Final = "rules"
"""The kinds of defaults."""

_NOT_YET: Final = (1 << 62, 0)
"""The place of this node's own file before it was said: after all that the others have said."""

_WHAT: Final = {POLICIES: "the policy of", LIMITS: "the limit", RULES: "the rule"}

_NAMED_MAX: Final = 5
"""Differences that are told one by one."""


class DefaultKey(NamedTuple):
    """What a default is for.

    Args:
        kind: `policies`, `limits` or `rules`.
        key: the model, the rate-limit key, or the name of the rule.
    """

    kind: str
    key: str


class Default(NamedTuple):
    """What a file says of one key.

    Args:
        value: the type and the configuration of a policy, a limit, or a rule.
        node: whose file.
    """

    value: Any
    node: str


def _policies(policies: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    checked: dict[str, tuple[str, str]] = {}
    for model, policy in _items("policies", policies):
        match policy:
            case (kind, config):
                checked[check_identifier("model_id", model)] = (
                    check_identifier("policy_type", kind),
                    check_text("config", config),
                )
            case _:
                raise InvalidTypeError("policies must have a type and a configuration each")
    return checked


def _limits(limits: Mapping[str, int]) -> dict[str, int]:
    return {
        check_identifier("key", key): check_limit(limit) for key, limit in _items("limits", limits)
    }


def _rules(rules: Iterable[LimitRule]) -> tuple[LimitRule, ...]:
    given = tuple(rules)
    for rule in given:
        check_kind("rules", rule, LimitRule, wanted="LimitRules")
    if len({rule.name for rule in given}) < len(given):
        raise InvalidFieldError("rules", "must have a name of its own each")
    if len(given) > LIMIT_RULES_MAX:
        raise LimitError("rate-limit rules", size=len(given), limit=LIMIT_RULES_MAX)
    return given


def _items(what: str, given: object) -> Iterable[tuple[Any, Any]]:
    if not isinstance(given, Mapping):
        raise InvalidTypeError(f"{what} must be a mapping, not {type(given).__name__}")
    return given.items()


@frozen(kw_only=True)
class ConfiguredDefaults:
    """What the file of one node says.

    Args:
        policies: for each model the type of its policy and that policy's configuration.
        limits: for each rate-limit key its limit, in units a second for the whole cluster; 0
            switches it off.
        rules: limits for patterns of keys, up to 1,000.

    Raises:
        LocalError: something that could not be written either.
    """

    policies: Mapping[str, tuple[str, str]] = field(factory=dict, converter=_policies)
    limits: Mapping[str, int] = field(factory=dict, converter=_limits)
    rules: tuple[LimitRule, ...] = field(default=(), converter=_rules)

    def __attrs_post_init__(self) -> None:
        """Check that all of it can be one entry.

        Raises:
            LimitError: it takes more than 256 KiB.
        """
        encode_value(_fact(self, _NOT_YET))

    def __bool__(self) -> bool:
        """Whether it says anything."""
        return bool(self.policies or self.limits or self.rules)


def _fact(said: ConfiguredDefaults, started: tuple[int, int]) -> dict[str, Any]:
    fact = {
        "started": list(started),
        "policies": {model: list(policy) for model, policy in said.policies.items()},
        "limits": dict(said.limits),
    }
    if said.rules:  # what says none is as before there were any
        fact["rules"] = {rule.name: [rule.pattern, *map(str, rule.limits)] for rule in said.rules}
    return fact


class _Fact(NamedTuple):
    """What one node said, and when it said it first, in hybrid time."""

    started: tuple[int, int]
    values: dict[DefaultKey, Any]


def _thaw(_key: str, value: Any, _version: int) -> _Fact:
    match stored_field(value, "started"):
        case [int(wall_ms), int(logical)] if wall_ms >= 0 <= logical:
            started = wall_ms, logical
        case _:
            raise InvalidTypeError("no hybrid time")
    values: dict[DefaultKey, Any] = {}
    for model, policy in _table(value, "policies").items():
        match policy:
            case [str(kind), str(config)]:
                values[DefaultKey(POLICIES, check_identifier("model_id", model))] = kind, config
            case _:
                raise InvalidTypeError("no policy")
    for key, limit in _table(value, "limits").items():
        values[DefaultKey(LIMITS, check_identifier("key", key))] = check_limit(limit)
    for name, said in _table(value, "rules").items() if "rules" in value else ():
        match said:
            case [str(pattern), *limits]:
                rule = LimitRule(name, pattern=pattern, limits=limits)
                values[DefaultKey(RULES, rule.name)] = rule
            case _:
                raise InvalidTypeError("no rule")
    return _Fact(started, values)


def _table(value: Any, name: str) -> dict[Any, Any]:
    table = stored_field(value, name)
    if type(table) is not dict:
        raise InvalidTypeError(f"{name} is no table")
    return table


class Defaults:
    """What the files of all nodes say, and which of it is in force.

    Args:
        documents: where it is kept, in `mesh:defaults`.
        name: this node's name.
        own: what this node's file says.
    """

    __slots__ = ("_by_key", "_documents", "_facts", "_name", "_opened", "_own",
                 "_started", "is_stale", "revision")  # fmt: skip

    def __init__(
        self, documents: Documents, *, name: str = "", own: ConfiguredDefaults | None = None
    ) -> None:
        self._documents = documents
        self._name = name
        self._own = own if own is not None else ConfiguredDefaults()
        self._opened: RecordTable[_Fact] | None = None
        self._facts: dict[str, _Fact] = {}
        self._by_key: dict[DefaultKey, dict[str, _Fact]] = {}
        self._started: tuple[int, int] | None = None
        self.is_stale = True
        """Whether `keep` has something to look at."""
        self.revision = 0
        """Grows with every change of what is said: for caches."""
        if self._own:
            self._put(name, _thaw(name, _fact(self._own, _NOT_YET), 0))

    # What is in force

    def get(self, kind: str, key: str) -> Default | None:
        """Return what is in force for a key that nobody has written. O(nodes that say it).

        Args:
            kind: `policies`, `limits` or `rules`.
            key: the model, the rate-limit key, or the name of the rule.
        """
        wanted = DefaultKey(kind, key)
        said = self._by_key.get(wanted)
        if said is None:
            return None
        node = max(said, key=lambda name: (said[name].started, name))
        return Default(said[node].values[wanted], node)

    def keys(self, kind: str) -> list[str]:
        """Return the keys of a kind for which any file says something, in no order. O(n)."""
        return [key.key for key in self._by_key if key.kind == kind]

    def differences(self, among: Collection[str]) -> list[str]:
        """Say where the files of these nodes differ, one line each. O(what is said).

        Args:
            among: the names of the members in reach: a roll is over once all of them agree.
        """
        lines = []
        for key, said in sorted(self._by_key.items()):
            nodes = sorted(name for name in said if name in among)
            if len({repr(said[name].values[key]) for name in nodes}) < 2:
                continue
            in_force = self.get(*key)
            whose = (
                f"; that of {in_force.node}, which started last, is in force" if in_force else ""
            )
            what = _WHAT.get(key.kind, "")
            names = ", ".join(nodes[:_NAMED_MAX]) + (" and others" if nodes[_NAMED_MAX:] else "")
            lines.append(f"the files of {names} differ about {what} {key.key!r}{whose}")
        more = len(lines) - _NAMED_MAX
        return lines[:_NAMED_MAX] + ([f"files differ about {more} more"] if more > 0 else [])

    # What happens

    def follow(self, names: Collection[Any] | None) -> set[DefaultKey]:
        """Read what nodes say, after changes of the document. O(what these nodes say).

        Args:
            names: whose facts have changed; None for all.

        Returns:
            the keys of which something else may be in force.
        """
        table = self._table()
        touched: set[DefaultKey] = set()
        if table is None:
            return touched
        if names is None:
            names = {*self._facts, *table.map.unordered_keys(), self._name}
        table.note_changes(names)
        for name in names:
            if not isinstance(name, str):
                continue
            self.is_stale = self.is_stale or name == self._name
            if name == self._name and self._started is None:
                continue  # of an earlier start; this one's file is in force here already
            touched |= self._put(name, self._fact(table, name))
        return touched

    @staticmethod
    def _fact(table: RecordTable[_Fact], name: str) -> _Fact | None:
        """Return what a node says, as of no later than it was written."""
        fact, entry = table.get(name), table.map.entry(name)
        if fact is None or entry is None:
            return None
        return _Fact(min(fact.started, (entry.wall_ms, entry.logical)), fact.values)

    def _put(self, name: str, fact: _Fact | None) -> set[DefaultKey]:
        before = self._facts.pop(name, None)
        touched = set() if before is None else set(before.values)
        for key in touched:
            del self._by_key[key][name]
            if not self._by_key[key]:
                del self._by_key[key]
        if fact is not None:
            self._facts[name] = fact
            for key in fact.values:
                self._by_key.setdefault(key, {})[name] = fact
            touched.update(fact.values)
        self.revision += 1
        return touched

    def keep(self) -> None:
        """Say what this node's file says, or say it again when it is there no more. O(its size).

        To be called once the node is ready, and then whenever `is_stale`.
        """
        self.is_stale = False
        if self._started is None:
            stamp = self._documents.replica.clock.tick()
            self._started = stamp.wall_ms, stamp.logical
        table = self._table(is_made=bool(self._own))
        if table is None:
            return
        if self._own:
            said = _fact(self._own, self._started)
            if table.get(self._name) != _thaw(self._name, said, 0):
                table.put(self._name, said)
        elif self._name in table.map:  # an earlier start had a file that said something
            table.remove(self._name)

    def said_by(self) -> list[str]:
        """Return the names of the nodes that said something, sorted; they may be gone. O(n log n).

        What cannot be read counts too.
        """
        table = self._table()
        return [] if table is None else [name for name in table.map if isinstance(name, str)]

    def remove(self, name: str) -> None:
        """Remove what a node said, which says it again if it is there after all. O(1)."""
        table = self._table()
        if table is not None and name in table.map:
            table.remove(name)

    # Whether it can be read

    def unreadable(self) -> list[str]:
        """Return the names of nodes that say what cannot be read. O(changes since then)."""
        if self._is_foreign():
            return ["another type of document"]
        table = self._table()
        return [] if table is None else table.unreadable()

    def _table(self, *, is_made: bool = False) -> RecordTable[_Fact] | None:
        """Return the facts; None where nobody has said anything, unless they are to be made."""
        if self._is_foreign():
            return None
        if self._opened is None and (is_made or self._document() is not None):
            self._opened = RecordTable(
                self._documents, DEFAULTS_DOCUMENT, what="defaults", thaw=_thaw
            )
        return self._opened

    def _is_foreign(self) -> bool:
        """Whether an application keeps something else under the document's name."""
        return not isinstance(self._document(), LWWMap | None)

    def _document(self) -> object:
        try:
            return self._documents.replica.get(DEFAULTS_DOCUMENT)
        except UnknownKeyError:
            return None
