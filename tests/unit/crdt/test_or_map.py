"""Maps of causal states over one context, and what is embedded in them."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.clock import Stamp
from meshlib.crdt import (
    CausalContext,
    Dot,
    Embedded,
    EnableWinsFlag,
    GSet,
    LWWRegister,
    MVRegister,
    ORMap,
    ORSet,
    PNCounter,
    bottom,
    decode,
    encode,
    resolve,
    type_tag,
)
from meshlib.errors import (
    DecodeError,
    InvalidTypeError,
    InvalidValueError,
    RejectReason,
    UnknownKeyError,
)
from meshlib.identity import ActorId, actor_id

ALICE = actor_id("alice", 1)
BOB = actor_id("bob", 1)
Sets = ORMap.of(ORSet)
Nested = ORMap.of(Sets)
Counters = ORMap.of(PNCounter)


def tagged(
    state: ORMap[str, ORSet[str]], key: str, element: str, dot: Dot
) -> ORMap[str, ORSet[str]]:
    return state.update(key, lambda value: value.add(element, dot=dot))


def counted(
    state: ORMap[str, PNCounter], key: str, amount: int, dot: Dot, *, by: ActorId = ALICE
) -> ORMap[str, PNCounter]:
    return state.update(key, lambda value: value.increment(amount, by=by), dot=dot)


def test_a_key_is_there_while_its_state_has_a_live_dot() -> None:
    """An empty set is no entry."""
    state = tagged(Sets(), "k", "x", Dot(ALICE, 1))
    assert ["k"] == state.keys() == list(state)
    assert {"k": {"x"}} == state.value
    state.absorb(state.update("k", lambda value: value.remove("x")))
    assert "k" not in state
    assert 0 == len(state)
    state._check()


def test_a_concurrent_update_survives_a_removal_with_what_is_new() -> None:
    """Of a set only the concurrent addition stays; what the removal saw is gone."""
    base = tagged(Sets(), "k", "old", Dot(ALICE, 1))
    update = tagged(base, "k", "new", Dot(ALICE, 2))
    removal = base.remove("k")
    assert {"k": {"new"}} == (base | update | removal).value == (removal | update).value
    assert {} == (base | removal).value


def test_maps_nest_to_any_depth_over_one_context() -> None:
    """A removal two levels up takes what it saw and leaves what was concurrent."""
    first = Nested().update("a", lambda inner: tagged(inner, "b", "x", Dot(ALICE, 1)))
    second = first.update("a", lambda inner: tagged(inner, "b", "y", Dot(BOB, 1)))
    state = first | second
    assert {"a": {"b": {"x", "y"}}} == state.value
    assert {"a": {"b": {"y"}}} == (state | first.remove("a")).value
    assert {"a": {}} != (state | state.remove("a")).value == {}
    assert CausalContext([Dot(ALICE, 1), Dot(BOB, 1)]) == state.context
    (state | first.remove("a"))._check()


def test_one_removal_inside_leaves_its_neighbours() -> None:
    """Removing an inner key goes through the outer one."""
    state = Nested().update("a", lambda inner: tagged(inner, "b", "x", Dot(ALICE, 1)))
    state.absorb(state.update("a", lambda inner: tagged(inner, "c", "y", Dot(ALICE, 2))))
    state.absorb(state.update("a", lambda inner: inner.remove("b")))
    assert {"a": {"c": {"y"}}} == state.value


def test_what_is_read_is_a_copy_that_tells_nothing_of_removals() -> None:
    """A state taken out and joined elsewhere cannot delete what it never saw."""
    state = tagged(Sets(), "k", "x", Dot(ALICE, 1))
    state.absorb(tagged(state, "other", "y", Dot(ALICE, 2)))
    read = state["k"]
    assert CausalContext([Dot(ALICE, 1)]) == read.context
    read.absorb(read.remove("x"))
    assert {"x"} == state["k"].value
    assert [("k", {"x"}), ("other", {"y"})] == [(k, set(v.value)) for k, v in state.items()]


def test_a_change_sees_the_whole_context() -> None:
    """A dot that was used under another key is refused."""
    state = tagged(Sets(), "k", "x", Dot(ALICE, 1))
    with pytest.raises(InvalidValueError):
        tagged(state, "other", "y", Dot(ALICE, 1))


def test_absent_keys() -> None:
    """`remove` and `[]` are errors then, `discard` and `get` are not."""
    state = Sets()
    with pytest.raises(UnknownKeyError):
        state.remove("k")
    with pytest.raises(UnknownKeyError):
        state["k"]
    assert state.discard("k").is_bottom()
    assert state.get("k") is None


def test_clearing_removes_every_key_seen() -> None:
    """A key that was not seen stays."""
    state = tagged(Sets(), "k", "x", Dot(ALICE, 1))
    unseen = tagged(Sets(), "j", "y", Dot(BOB, 1))
    assert {"j": {"y"}} == (state | state.clear() | unseen).value


def test_concurrent_counts_of_different_writers_add_up() -> None:
    """An embedded counter counts as it does outside a map."""
    one = counted(Counters(), "k", 2, Dot(ALICE, 1))
    two = counted(Counters(), "k", 3, Dot(BOB, 1), by=BOB)
    state = one | two
    state.absorb(counted(state, "k", 1, Dot(ALICE, 2)))
    assert {"k": 6} == state.value
    assert 6 == state["k"].value
    assert 2 == len(list(state._leaves()))


def test_a_removal_resets_an_embedded_counter() -> None:
    """After a removal that is not concurrent with a change, counting starts at 0 again."""
    state = counted(Counters(), "k", 5, Dot(ALICE, 1))
    state.absorb(state.remove("k"))
    assert {} == state.value
    state.absorb(counted(state, "k", 1, Dot(ALICE, 2)))
    assert {"k": 1} == state.value


def test_a_change_concurrent_with_a_removal_keeps_its_writer_s_whole_contribution() -> None:
    """The documented anomaly: of the writer that changed all survives, of others nothing."""
    base = counted(Counters(), "k", 5, Dot(ALICE, 1))
    base.absorb(counted(base, "k", 10, Dot(BOB, 1), by=BOB))
    removal = base.remove("k")
    change = counted(base, "k", 1, Dot(ALICE, 2))
    assert {"k": 6} == (base | removal | change).value == (change | removal).value


def test_what_survives_a_concurrent_removal_is_coarser_for_an_embedded_type() -> None:
    """As the class says: of sets that only grow both elements come back, of others the new one."""
    plain, causal = ORMap.of(GSet), ORMap.of(ORSet)
    grown = plain().update("k", lambda value: value.add("admin"), dot=Dot(BOB, 1))
    removed = grown | grown.remove("k")
    later = grown | grown.update("k", lambda value: value.add("write"), dot=Dot(BOB, 2))
    observed = tagged(causal(), "k", "admin", Dot(BOB, 1))
    gone = observed | observed.remove("k")
    newer = observed | tagged(observed, "k", "write", Dot(BOB, 2))

    assert {"admin", "write"} == set((removed | later)["k"])
    assert {"write"} == set((gone | newer)["k"])


def test_an_embedded_register_behaves_the_same() -> None:
    """A concurrent write survives a removal; one that the removal saw does not."""
    registers = ORMap.of(LWWRegister)
    base = registers().update(
        "k", lambda value: value.set("old", stamp=Stamp(1, 0, ALICE)), dot=Dot(ALICE, 1)
    )
    change = base.update(
        "k", lambda value: value.set("new", stamp=Stamp(2, 0, BOB)), dot=Dot(BOB, 1)
    )
    assert {"k": "new"} == (base | change | base.remove("k")).value
    assert {} == (base | base.remove("k")).value
    assert Stamp(2, 0, BOB) == (base | change).latest_stamp()


def test_an_embedded_change_needs_a_dot_and_a_causal_one_has_its_own() -> None:
    """A dot that is missing, or would be ignored, is an error."""
    with pytest.raises(InvalidTypeError):
        Counters().update("k", lambda value: value.increment(by=ALICE))
    with pytest.raises(InvalidTypeError):
        Sets().update("k", lambda value: value.discard("x"), dot=Dot(ALICE, 1))


def test_a_change_must_return_a_delta_of_the_type() -> None:
    """Anything else is the caller's mistake, and changes nothing."""
    with pytest.raises(InvalidTypeError):
        Sets().update("k", lambda value: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(InvalidTypeError):
        Counters().update("k", lambda value: 3, dot=Dot(ALICE, 1))  # type: ignore[arg-type,return-value]
    with pytest.raises(InvalidTypeError):
        tagged(Sets(), True, "x", Dot(ALICE, 1))  # type: ignore[arg-type]


def test_a_change_that_is_none_changes_nothing() -> None:
    """An embedded delta that is the bottom makes no dot."""
    assert Counters().update("k", lambda value: PNCounter(), dot=Dot(ALICE, 1)).is_bottom()


def test_types_are_made_once_and_named() -> None:
    """The same parameters give the same class, under a tag that a peer can resolve."""
    assert Sets is ORMap.of(ORSet)
    assert "or_map(or_map(or_set))" == type_tag(Nested)
    assert "or_map(pn_counter)" == type_tag(Counters)
    assert "embedded(pn_counter)" == type_tag(Embedded.of(PNCounter))
    explicit: Any = ORMap.of(Embedded.of(PNCounter))
    assert Counters is explicit
    assert resolve("or_map(or_map(mv_register))") is ORMap.of(ORMap.of(MVRegister))
    state = Nested().update("a", lambda inner: tagged(inner, "b", "x", Dot(ALICE, 1)))
    assert state == decode(encode(state))


def test_a_class_without_its_type_cannot_be_used() -> None:
    """`ORMap` alone does not know what it holds."""
    with pytest.raises(InvalidTypeError):
        ORMap()
    with pytest.raises(InvalidTypeError):
        ORMap.of(dict)
    with pytest.raises(InvalidTypeError):
        Embedded.of(ORSet)


@pytest.mark.parametrize(
    "tag", ["or_map()", "or_map(or_set,or_set)", "or_map(embedded(pn_counter))", "embedded(or_set)"]
)
def test_a_tag_that_is_not_how_a_type_is_written_is_refused(tag: str) -> None:
    """One type has one tag."""
    with pytest.raises(DecodeError) as caught:
        bottom(tag)
    assert RejectReason.TYPE == caught.value.reason


@pytest.mark.parametrize("leaf", ["k", ("k",), (None, "x"), ("k", None), ("k", "x", "y")])
def test_a_malformed_leaf_is_refused(leaf: object) -> None:
    """A leaf is a key and the leaf of its state."""
    with pytest.raises(DecodeError):
        Sets.from_wire(((ALICE, (1,), (1,), (leaf,)),))


def test_an_empty_contribution_is_refused() -> None:
    """A dot without a contribution would be a second form of the same state."""
    with pytest.raises(DecodeError):
        Counters.from_wire(((ALICE, (1,), (1,), (("k", ()),)),))


def test_a_map_of_flags() -> None:
    """Any causal type can be a value."""
    flags = ORMap.of(EnableWinsFlag)
    state = flags().update("k", lambda value: value.enable(dot=Dot(ALICE, 1)))
    assert {"k": True} == state.value
    assert (state | state.update("k", lambda value: value.disable())).is_bottom() is False
    assert {} == (state | state.update("k", lambda value: value.disable())).value
