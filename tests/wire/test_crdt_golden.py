"""Golden bytes of every type, in format version 1.

The file beside this one is the promise: what it holds decodes for ever, and as long as a type is
in version 1 its states encode to exactly these bytes. A new version gets a file of its own; a
line that is there is never changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshlib.clock import Stamp
from meshlib.crdt import (
    BoundedCounter,
    DisableWinsFlag,
    Dot,
    Embedded,
    EnableWinsFlag,
    GCounter,
    GSet,
    HashedPrefixCacheState,
    Lexicographic,
    LWWMap,
    LWWRegister,
    MaxRegister,
    MinRegister,
    MVRegister,
    ORMap,
    ORSet,
    Pair,
    PNCounter,
    PrefixCacheState,
    RemoveWinsSet,
    TwoPhaseSet,
    WindowCounter,
    absorb,
    decode,
    encode,
    lattice,
    registry,
    type_tag,
)
from meshlib.identity import ActorId
from meshlib.routing import HashedTreeDocument, TreeDocument

GOLDEN = json.loads(Path(__file__).with_name("crdt_v1.json").read_text())

ALICE = ActorId(bytes(range(16)))
BOB = ActorId(bytes(range(16, 32)))


@lattice(name="golden")
class GoldenRecord:
    """A record as a user writes one."""

    health: LWWRegister[bool]
    load: MaxRegister[float]
    tags: ORSet[str]


def after(state: Any, *writes: Callable[[Any], Any]) -> Any:
    """Return a state after some writes."""
    for write in writes:
        state = absorb(state, write(state))[0]
    return state


def g_counter() -> GCounter:
    return GCounter().increment(3, by=ALICE) | GCounter().increment(1 << 40, by=BOB)


def or_set() -> Any:
    return after(
        ORSet(),
        lambda s: s.add("gone", dot=Dot(ALICE, 1)),
        lambda s: s.add("é", dot=Dot(ALICE, 2)),
        lambda s: s.remove("gone"),
        lambda s: ORSet[str]().add("é", dot=Dot(BOB, 1)),
        lambda s: s.add(("t", 1, b"\x00"), dot=Dot(BOB, 5)),
    )


def lww_map() -> Any:
    return after(
        LWWMap(),
        lambda m: m.set("k", {"b": [1, None], "a": 1.5}, stamp=Stamp(1000, 0, ALICE), sequence=7),
        lambda m: m.set(5, True, stamp=Stamp(1000, 1, ALICE), sequence=8),
        lambda m: m.set("k", "x", stamp=Stamp(2000, 0, BOB), sequence=1),
        lambda m: m.remove(5, stamp=Stamp(3000, 65535, BOB), sequence=2),
    )


def lww_map_of_counts_alone() -> Any:
    write, count = LWWMap[str, int]().set("k", 1, stamp=Stamp(9, 0, ALICE)).decompose()
    return count | write.set("j", 1, stamp=Stamp(10, 0, BOB))


def window_counter(cls: type[WindowCounter]) -> WindowCounter:
    state: WindowCounter = after(
        cls(),
        lambda c: c.record(300, window=1_700_000_000, by=ALICE),
        lambda c: c.refund(20, window=1_700_000_000, by=ALICE),
        lambda c: c.record(1, window=1_700_000_001, by=BOB),
        lambda c: c.record(2, window=1_700_000_001, by=ALICE),
    )
    return state


def bounded_counter() -> Any:
    return after(
        BoundedCounter(),
        lambda c: c.grant(100, by=ALICE),
        lambda c: c.transfer(40, by=ALICE, to=BOB),
        lambda c: c.spend(7, by=BOB),
    )


def map_of_maps() -> Any:
    return after(
        ORMap.of(ORMap.of(ORSet))(),
        lambda m: m.update("a", lambda i: i.update("b", lambda s: s.add("x", dot=Dot(ALICE, 1)))),
        lambda m: m.update("a", lambda i: i.update(1, lambda s: s.add("y", dot=Dot(BOB, 1)))),
    )


def map_of_counters() -> Any:
    return after(
        ORMap.of(PNCounter)(),
        lambda m: m.update("k", lambda c: c.increment(2, by=ALICE), dot=Dot(ALICE, 1)),
        lambda m: m.update("k", lambda c: c.decrement(5, by=BOB), dot=Dot(BOB, 1)),
    )


def prefix_cache() -> Any:
    return after(
        PrefixCacheState(),
        lambda c: c.insert("hello world", tenant="http://w1", access=5),
        lambda c: c.insert("hello there", tenant="http://w1", access=6),
        lambda c: c.insert("héllo", tenant="http://w2", access=7),
        lambda c: c.remove_tenant("http://w2"),
        lambda c: c.evict("http://w1", floor=5),
    )


def shared_prefix_cache() -> Any:
    return after(
        PrefixCacheState(),
        lambda c: c.insert("the same beginning, one", tenant="http://w1", access=5),
        lambda c: c.insert("the same beginning, two", tenant="http://w1", access=6),
        lambda c: c.insert("the same beginning, two", tenant="http://w2", access=7),
        lambda c: c.insert("the same beginning, three", tenant="http://w2", access=7),
    )


def hashed_prefix_cache() -> Any:
    return after(
        HashedPrefixCacheState(),
        lambda c: c.insert_blocks([1, (1 << 64) - 1], tenant="http://w1", access=5),
        lambda c: c.insert_blocks([1, 7], tenant="http://w2", access=6),
    )


def record() -> Any:
    some: Callable[..., GoldenRecord] = GoldenRecord  # a delta names some fields only
    return some(
        health=LWWRegister[bool]().set(True, stamp=Stamp(1, 2, ALICE)),
        tags=ORSet[str]().add("gpu", dot=Dot(BOB, 1)),
    )


def tree_document() -> Any:
    return after(
        TreeDocument(),
        lambda _: TreeDocument(cache=prefix_cache()),
        lambda tree: TreeDocument(changes=tree.changes.increment(5, by=ALICE)),
    )


def hashed_tree_document() -> Any:
    return after(
        HashedTreeDocument(),
        lambda _: HashedTreeDocument(cache=hashed_prefix_cache()),
        lambda tree: HashedTreeDocument(changes=tree.changes.increment(5, by=ALICE)),
    )


STATES: dict[str, Callable[[], Any]] = {
    "g_counter": g_counter,
    "pn_counter": lambda: PNCounter().increment(2, by=ALICE) | PNCounter().decrement(9, by=BOB),
    "max_register": lambda: MaxRegister[float]().set(-0.0),
    "max_register of a tuple": lambda: MaxRegister[Any]().set((3, "v", b"\xff")),
    "min_register": lambda: MinRegister[int]().set(-(1 << 63)),
    "lww_register": lambda: LWWRegister[Any]().set(
        {"k": (1, "x")}, stamp=Stamp(1_700_000_000_000, 3, ALICE)
    ),
    "mv_register": lambda: (
        MVRegister[Any]().set("a", dot=Dot(ALICE, 3)) | MVRegister[Any]().set(2, dot=Dot(BOB, 1))
    ),
    "enable_wins_flag": lambda: EnableWinsFlag().enable(dot=Dot(ALICE, 1)),
    "disable_wins_flag": lambda: (
        DisableWinsFlag().enable(dot=Dot(ALICE, 1)) | DisableWinsFlag().disable(dot=Dot(BOB, 2))
    ),
    "g_set": lambda: after(GSet(), lambda s: s.add("b"), lambda s: s.add("a"), lambda s: s.add(1)),
    "two_phase_set": lambda: after(
        TwoPhaseSet(), lambda s: s.add("a"), lambda s: s.add("b"), lambda s: s.remove("a")
    ),
    "or_set": or_set,
    "or_set of a removal": lambda: ORSet[str]().add("x", dot=Dot(ALICE, 3)).remove("x"),
    "remove_wins_set": lambda: after(
        RemoveWinsSet(),
        lambda s: s.add("x", dot=Dot(ALICE, 1)),
        lambda s: s.discard("y", dot=Dot(BOB, 1)),
    ),
    "lww_map": lww_map,
    "lww_map of counts alone": lww_map_of_counts_alone,
    "or_map(or_set)": lambda: ORMap.of(ORSet)().update(
        "k", lambda s: s.add("x", dot=Dot(ALICE, 1))
    ),
    "or_map(or_map(or_set))": map_of_maps,
    "or_map(pn_counter)": map_of_counters,
    "embedded(g_counter)": lambda: Embedded.of(GCounter)().update(
        lambda c: c.increment(4, by=ALICE), dot=Dot(ALICE, 2)
    ),
    "pair(g_counter,g_set)": lambda: Pair.of(GCounter, GSet)(g_counter(), GSet[str]().add("x")),
    "lexicographic(max_register,pn_counter)": lambda: Lexicographic.of(MaxRegister, PNCounter)(
        MaxRegister[int]().set(7), PNCounter().increment(by=BOB)
    ),
    "window_counter": lambda: window_counter(WindowCounter),
    "window_counter(2)": lambda: window_counter(WindowCounter.of(2)),
    "bounded_counter": bounded_counter,
    "prefix_cache": prefix_cache,
    "prefix_cache of shared texts": shared_prefix_cache,
    "prefix_cache_hash": hashed_prefix_cache,
    "record:golden": record,
    "record:tree": tree_document,
    "record:tree_hash": hashed_tree_document,
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_encodes_to_the_golden_bytes(name: str) -> None:
    """No change of the code changes what a version 1 state looks like on the wire."""
    assert GOLDEN[name] == encode(STATES[name]()).hex()


@pytest.mark.parametrize("name", STATES)
def test_the_golden_bytes_decode_for_ever(name: str) -> None:
    """What was once written is read, as the same state of the same type."""
    state = decode(bytes.fromhex(GOLDEN[name]))
    assert STATES[name]() == state
    assert name.partition(" of ")[0] == type_tag(state)


@pytest.mark.parametrize("name", STATES)
def test_the_empty_state_is_golden_too(name: str) -> None:
    """The bottom of every type has bytes of its own."""
    empty = type(STATES[name]())()
    assert GOLDEN[f"{type_tag(empty)} empty"] == encode(empty).hex()
    assert empty == decode(encode(empty))


def test_every_type_and_every_family_is_golden() -> None:
    """A type that is added without its bytes fails here."""
    golden = {key.partition(" ")[0] for key in GOLDEN}
    families = {tag.partition("(")[0] for tag in golden if "(" in tag}
    known = [
        tag
        for tag, cls in registry._classes.items()
        if cls.__module__.startswith("meshlib.") and not cls.__module__.startswith("meshlib.test")
    ]
    assert set() == {tag for tag in known if "(" not in tag} - golden
    assert set() == registry._families.keys() - families
