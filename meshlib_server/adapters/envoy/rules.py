"""Rule files in the format of envoyproxy/ratelimit: which limit a descriptor has.

Rule: what a file says is decided here, without gRPC: a key this reader does not know is an error,
so that nobody believes in a limit that is not kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from meshlib.errors import ConfigError
from meshlib_server.structure import read_yaml

__all__ = ["UNITS", "Rule", "RuleBook", "counter_key", "load_rules", "rule_files"]

UNITS: Final = ("second", "minute", "hour", "day", "week", "month")
"""The units that limits have."""

PER_UNIT_MAX: Final = 2**32 - 1

KEY_BYTES_MAX: Final = 960
"""Of a counter's key: a rate-limit key is at most 1,000 bytes, and its limit stands before it."""

_ROOT_KEYS: Final = {"domain", "descriptors"}
_DESCRIPTOR_KEYS: Final = {
    "key", "value", "rate_limit", "descriptors", "shadow_mode", "quota_mode", "share_threshold",
    "detailed_metric", "value_to_metric",
}  # fmt: skip
_LIMIT_KEYS: Final = {"unit", "requests_per_unit", "unlimited", "name", "replaces"}
_TRUTHS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_TO_ENCODE: Final = re.compile("[%/=@\x00-\x20\x7f]")


@frozen(kw_only=True)
class Rule:
    """The limit of one descriptor.

    Args:
        per_unit: requests in each unit; 0 lets none pass. None: unlimited.
        unit: one of `UNITS`.
        name: by which other rules may replace this one; empty for none.
        replaces: the names of the rules that do not count beside this one.
        is_shadow: whether it is counted and never enforced.
        is_quota: whether what is over it passes and is told in the answer's metadata.
    """

    per_unit: int | None
    unit: str = "second"
    name: str = ""
    replaces: tuple[str, ...] = ()
    is_shadow: bool = False
    is_quota: bool = False

    @property
    def policy(self) -> str:
        """The limit as text, such as `300/minute`; empty when unlimited."""
        return "" if self.per_unit is None else f"{self.per_unit}/{self.unit}"

    @property
    def is_enforced(self) -> bool:
        """Whether a request over it is refused."""
        return not (self.is_shadow or self.is_quota)


@frozen
class _Level:
    """One list of descriptors: what the next entry of a request may match."""

    exact: dict[tuple[str, str], _Descriptor] = field(factory=dict)
    prefixes: dict[str, list[_Descriptor]] = field(factory=dict)
    """By key, the longest prefix first."""
    any_value: dict[str, _Descriptor] = field(factory=dict)

    def policies(self) -> Iterator[str]:
        """Yield the limits of all rules here and below."""
        listed = [one for several in self.prefixes.values() for one in several]
        for one in (*self.exact.values(), *self.any_value.values(), *listed):
            yield "" if one.rule is None else one.rule.policy
            yield from one.below.policies()

    def find(self, key: str, value: str) -> _Descriptor | None:
        """Return the most specific match of an entry: its value, a prefix of it, its key."""
        found = self.exact.get((key, value))
        if found is None:
            for one in self.prefixes.get(key, ()):
                if value.startswith(one.value[:-1]):
                    return one
            found = self.any_value.get(key)
        return found


@frozen
class _Descriptor:
    value: str
    rule: Rule | None
    is_shared: bool
    below: _Level


@frozen
class RuleBook:
    """The rules of every domain.

    Args:
        domains: the first level of each.
    """

    domains: Mapping[str, Any] = field(factory=dict)

    def policies(self) -> set[str]:
        """Return the limits that rules have, as text. O(rules)."""
        return {policy for level in self.domains.values() for policy in level.policies()} - {""}

    def find(self, domain: str, entries: Sequence[tuple[str, str]]) -> tuple[Rule, str] | None:
        """Return the rule of a descriptor and the key that it is counted under. O(entries).

        A rule matches a descriptor of exactly as many entries as it is deep, and on each level
        the most specific one is taken: what is said of a value goes before what is said of its
        key. Each value that a rule without one, or with a wildcard, matches has a count of its
        own, unless it says `share_threshold`.

        Args:
            domain: of the request.
            entries: key and value of each entry, in their order.

        Returns:
            None when no rule says anything of it: it is not limited.
        """
        level = self.domains.get(domain)
        counted: list[tuple[str, str]] = []
        found: _Descriptor | None = None
        for key, value in entries:
            found = None if level is None else level.find(key, value)
            if found is None:
                return None
            counted.append((key, found.value if found.is_shared else value))
            level = found.below
        if found is None or found.rule is None:
            return None
        return found.rule, counter_key(domain, counted)


def counter_key(domain: str, entries: Iterable[tuple[str, str]]) -> str:
    """Return the rate-limit key of a descriptor: `llm/api_key=alice`.

    The characters `%`, `/`, `=` and `@`, blanks and control characters in a name are written as
    `%` and two digits, so that no value can be read as another entry. A key over 960 bytes ends
    in a hash of the whole instead.
    """
    parts = [_encoded(domain), *(f"{_encoded(key)}={_encoded(value)}" for key, value in entries)]
    whole = "/".join(parts)
    data = whole.encode("utf-8", "surrogatepass")
    if len(data) <= KEY_BYTES_MAX:
        return whole
    from hashlib import blake2b

    head = data[: KEY_BYTES_MAX - 40].decode("utf-8", "ignore")
    return f"{head}%{blake2b(data, digest_size=16).hexdigest()}"


def _encoded(text: str) -> str:
    return _TO_ENCODE.sub(lambda found: f"%{ord(found[0]):02X}", text)


def load_rules(path: str) -> RuleBook:
    """Read a rule file, or every `*.yaml` and `*.yml` of a folder, each with its domain.

    Args:
        path: the file, or the folder.

    Raises:
        ConfigError: something in it is no rule; named with the file and the place.
    """
    domains: dict[str, _Level] = {}
    for file in _files_of(Path(path)):
        tree = read_yaml(str(file), is_text=True)
        _check_keys(tree, _ROOT_KEYS, f"{file}")
        domain = tree.get("domain")
        if not isinstance(domain, str) or not domain:
            raise ConfigError(f"{file}: domain: must be given")
        if domain in domains:
            raise ConfigError(f"{file}: domain: {domain!r} is in another file as well")
        domains[domain] = _level(tree.get("descriptors"), f"{file}: descriptors")
    return RuleBook(domains)


def rule_files(path: str | None) -> tuple[str, ...]:
    """Return what is to be looked at for changes: the file, or the folder and each file in it."""
    if path is None:
        return ()
    place = Path(path)
    return (path, *map(str, _files_of(place))) if place.is_dir() else (path,)


def _files_of(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    return sorted(one for one in place.iterdir() if one.suffix in (".yaml", ".yml"))


def _level(items: Any, place: str) -> _Level:
    level = _Level()
    for index, item in enumerate(_listed(items, place)):
        where = f"{place}[{index}]"
        _check_keys(item, _DESCRIPTOR_KEYS, where)
        key, value = _text(item, "key", where), _text(item, "value", where)
        if not key:
            raise ConfigError(f"{where}.key: must not be empty")
        is_wildcard = value.endswith("*")
        made = _Descriptor(
            value,
            _rule(item, where),
            _truth(item, "share_threshold", where),
            _level(item.get("descriptors"), f"{where}.descriptors"),
        )
        if made.is_shared and not is_wildcard:
            raise ConfigError(f"{where}.share_threshold: only values that end in * can share one")
        known = level.prefixes.setdefault(key, []) if is_wildcard else []
        if (
            (key, value) in level.exact
            or (not value and key in level.any_value)
            or any(one.value == value for one in known)
        ):
            raise ConfigError(f"{where}: the same key and value stand here twice")
        if is_wildcard:
            known.append(made)
            known.sort(key=lambda one: -len(one.value))
        elif value:
            level.exact[key, value] = made
        else:
            level.any_value[key] = made
    return level


def _rule(item: Mapping[str, Any], where: str) -> Rule | None:
    given = item.get("rate_limit")
    is_shadow = _truth(item, "shadow_mode", where)
    is_quota = _truth(item, "quota_mode", where)
    if given is None or given == "":
        return None
    where = f"{where}.rate_limit"
    _check_keys(given, _LIMIT_KEYS, where)
    name, unit = _text(given, "name", where), _text(given, "unit", where).lower()
    replaces = []
    for index, one in enumerate(_listed(given.get("replaces"), f"{where}.replaces")):
        _check_keys(one, {"name"}, f"{where}.replaces[{index}]")
        replaced = _text(one, "name", f"{where}.replaces[{index}]")
        if not replaced or replaced == name:
            raise ConfigError(f"{where}.replaces[{index}].name: must be another rule's name")
        replaces.append(replaced)
    if _truth(given, "unlimited", where):
        if unit:
            raise ConfigError(f"{where}.unit: what is unlimited has none")
        return Rule(per_unit=None, name=name, replaces=tuple(replaces))
    if unit not in UNITS:
        raise ConfigError(f"{where}.unit: must be one of {', '.join(UNITS)}, got {unit!r}")
    text = _text(given, "requests_per_unit", where)
    if not (text.isascii() and text.isdigit()) or int(text) > PER_UNIT_MAX:
        raise ConfigError(f"{where}.requests_per_unit: must be 0 to {PER_UNIT_MAX}, got {text!r}")
    return Rule(
        per_unit=int(text), unit=unit, name=name, replaces=tuple(replaces),
        is_shadow=is_shadow, is_quota=is_quota,
    )  # fmt: skip


def _check_keys(item: Any, known: set[str], where: str) -> None:
    if type(item) is not dict:
        raise ConfigError(f"{where}: expected keys and values")
    unknown = sorted(str(key) for key in set(item) - known)
    if unknown:
        raise ConfigError(f"{where}.{unknown[0]}: unknown key")


def _listed(items: Any, where: str) -> list[Any]:
    if items is None or items == "":
        return []
    if type(items) is not list:
        raise ConfigError(f"{where}: expected a list")
    return items


def _text(item: Mapping[str, Any], name: str, where: str) -> str:
    text = item.get(name, "")
    if type(text) is not str:
        raise ConfigError(f"{where}.{name}: expected text")
    return text


def _truth(item: Mapping[str, Any], name: str, where: str) -> bool:
    text = _text(item, name, where).lower()
    if text and text not in _TRUTHS:
        raise ConfigError(f"{where}.{name}: expected true or false, got {text!r}")
    return _TRUTHS.get(text, False)
