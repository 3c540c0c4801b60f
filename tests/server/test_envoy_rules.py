"""Rule files of envoyproxy/ratelimit: what they mean, and what is no rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib.errors import ConfigError
from meshlib_server.adapters.envoy import Rule, RuleBook, counter_key, load_rules
from meshlib_server.adapters.envoy.rules import rule_files

RULES = """
domain: shop
descriptors:
  - key: ip
    rate_limit: {unit: second, requests_per_unit: 10}
  - key: ip
    value: 50.0.0.5
    rate_limit: {unit: second, requests_per_unit: 0}
  - key: code
    value: 0404
    rate_limit: {unit: Second, requests_per_unit: 7}
  - key: path
    value: /api/*
    rate_limit: {unit: second, requests_per_unit: 20}
  - key: path
    value: /api/v2/*
    share_threshold: true
    rate_limit: {unit: second, requests_per_unit: 30}
  - key: service
    descriptors:
      - key: user
        value: ann
        rate_limit: {unit: second, requests_per_unit: 1, name: of_ann, replaces: [{name: other}]}
        shadow_mode: true
      - key: user
        rate_limit: {unlimited: true}
        detailed_metric: true
  - key: service
    value: open
  - key: soft
    quota_mode: yes
    rate_limit: {unit: second, requests_per_unit: 3}
"""


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> RuleBook:
    """Read the rules above from a file."""
    path = tmp_path_factory.mktemp("rules") / "shop.yaml"
    path.write_text(RULES)
    return load_rules(str(path))


@pytest.mark.parametrize(
    ("entries", "per_unit", "key"),
    [
        ([("ip", "1.2.3.4")], 10, "shop/ip=1.2.3.4"),
        ([("ip", "50.0.0.5")], 0, "shop/ip=50.0.0.5"),
        ([("code", "0404")], 7, "shop/code=0404"),
        ([("path", "/api/x")], 20, "shop/path=%2Fapi%2Fx"),
        ([("path", "/api/v2/x")], 30, "shop/path=%2Fapi%2Fv2%2F*"),
        ([("service", "a"), ("user", "ann")], 1, "shop/service=a/user=ann"),
        ([("service", "a"), ("user", "bob")], None, "shop/service=a/user=bob"),
    ],
)
def test_the_most_specific_rule_is_taken(
    rules: RuleBook, entries: list[tuple[str, str]], per_unit: int | None, key: str
) -> None:
    """A value goes before a wildcard, the longer one first, and that before the key alone."""
    found = rules.find("shop", entries)

    assert found is not None
    assert (per_unit, key) == (found[0].per_unit, found[1])


@pytest.mark.parametrize(
    "entries",
    [
        [("nothing", "x")],
        [("path", "/other")],
        [("ip", "1.2.3.4"), ("user", "ann")],
        [("service", "a")],
        [("service", "open")],
        [("service", "open"), ("user", "ann")],
        [],
    ],
)
def test_what_no_rule_matches_whole_has_no_limit(
    rules: RuleBook, entries: list[tuple[str, str]]
) -> None:
    """A rule is as deep as the descriptor that it matches; one without a limit lets all pass."""
    assert rules.find("shop", entries) is None
    assert rules.find("elsewhere", [("ip", "1.2.3.4")]) is None


def test_a_rule_says_how_it_counts(rules: RuleBook) -> None:
    """Shadow, quota, names and what is replaced are read as they are written."""
    ann = rules.find("shop", [("service", "a"), ("user", "ann")])
    soft = rules.find("shop", [("soft", "x")])

    assert ann is not None
    assert ann[0] == Rule(per_unit=1, name="of_ann", replaces=("other",), is_shadow=True)
    assert soft is not None
    assert soft[0].is_quota
    assert not soft[0].is_enforced


def test_no_value_can_be_read_as_another_entry() -> None:
    """What parts entries is encoded inside of them."""
    keys = {
        counter_key("d", [("a", "b/c=d")]),
        counter_key("d", [("a", "b"), ("c", "d")]),
        counter_key("d", [("a", "b%2Fc=d")]),
        counter_key("d/a=b", [("c", "d")]),
    }

    assert len(keys) == 4


def test_a_long_value_has_a_key_of_its_own_within_the_bound() -> None:
    """Two long values that differ in their ends are two keys, and each can be stored."""
    keys = [counter_key("d", [("a", "ä" * 5000 + end)]) for end in "xy"]

    assert keys[0] != keys[1]
    assert all(len(key.encode()) <= 960 for key in keys)


LIMIT = "{unit: second, requests_per_unit: 1}"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("descriptors: []", "domain"),
        ("domain: d\nother: 1", ".other: unknown key"),
        ("domain: d\ndomain: e", "given twice"),
        ("- 1", "expected sections"),
        ("domain: d\ndescriptors: 1", "expected a list"),
        ("domain: d\ndescriptors: [{value: x}]", "descriptors[0].key"),
        ("domain: d\ndescriptors: [{key: k, valu: x}]", "descriptors[0].valu"),
        ("domain: d\ndescriptors: [{key: k}, {key: k}]", "twice"),
        ("domain: d\ndescriptors: [{key: k, value: v*}, {key: k, value: v*}]", "twice"),
        ("domain: d\ndescriptors: [{key: k, rate_limit: {unit: year}}]", "unit"),
        ("domain: d\ndescriptors: [{key: k, rate_limit: {unit: second}}]", "requests_per_unit"),
        (f"domain: d\ndescriptors: [{{key: k, shadow_mode: 2, rate_limit: {LIMIT}}}]", "shadow"),
        (f"domain: d\ndescriptors: [{{key: k, share_threshold: on, rate_limit: {LIMIT}}}]", "*"),
        (
            "domain: d\ndescriptors: [{key: k, rate_limit: {unit: second, requests_per_unit: -1}}]",
            "0 to",
        ),
        (
            "domain: d\ndescriptors: [{key: k, rate_limit: {unit: second, unlimited: true}}]",
            "unlimited",
        ),
        (
            "domain: d\ndescriptors: [{key: k, rate_limit: {unlimited: true, replaces: [{}]}}]",
            "replaces[0]",
        ),
    ],
)
def test_what_is_no_rule_is_named(tmp_path: Path, text: str, named: str) -> None:
    """A mistake is told with its place, and nobody believes in a limit that is not kept."""
    path = tmp_path / "rules.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        load_rules(str(path))

    assert named in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_folder_has_a_domain_in_each_file(tmp_path: Path) -> None:
    """Each file brings its domain, and two files may not bring the same."""
    rule = f"descriptors: [{{key: k, rate_limit: {LIMIT}}}]"
    for name in ("a.yaml", "b.yml"):
        (tmp_path / name).write_text(f"domain: {name[0]}\n{rule}")
    (tmp_path / "notes.txt").write_text("no rules")
    book = load_rules(str(tmp_path))

    assert all(book.find(domain, [("k", "v")]) is not None for domain in "ab")
    (tmp_path / "c.yaml").write_text(f"domain: a\n{rule}")
    with pytest.raises(ConfigError, match="in another file"):
        load_rules(str(tmp_path))


def test_of_a_folder_each_file_is_looked_at_for_changes(tmp_path: Path) -> None:
    """What is written into a file that was there changes nothing of the folder itself."""
    (tmp_path / "a.yaml").write_text("domain: a")
    (tmp_path / "notes.txt").write_text("no rules")

    assert (str(tmp_path), str(tmp_path / "a.yaml")) == rule_files(str(tmp_path))
    assert (str(tmp_path / "a.yaml"),) == rule_files(str(tmp_path / "a.yaml"))
    assert () == rule_files(None)
