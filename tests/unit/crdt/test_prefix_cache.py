"""Prefix caches join as lattices, match as a list would, and forget for good."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.codec import pack, unpack
from meshlib.crdt import (
    Container,
    Generation,
    HashedPrefixCacheState,
    Lattice,
    Paged,
    PrefixCacheState,
    absorb,
    decode,
    difference,
    encode,
    join_all,
)
from meshlib.errors import (
    DecodeError,
    InvalidTypeError,
    InvalidValueError,
    LimitError,
    LimitExceeded,
    LocalError,
    UnknownKeyError,
)
from meshlib.prefix import Match, text_chain

Cache = PrefixCacheState | HashedPrefixCacheState

TEXTS = ["a", "ab", "abc", "abd", "b", "ba"]
TENANTS = ["v", "w"]
SPREAD = 0x0101_0101_0101_0101


def insert(state: Any, text: str, tenant: str, access: int) -> Any:
    """Insert the text, or the block that stands for it in hash mode."""
    if isinstance(state, PrefixCacheState):
        return state.insert(text, tenant=tenant, access=access)
    return state.insert_blocks([block_of(text)], tenant=tenant, access=access)


def block_of(text: str) -> int:
    return TEXTS.index(text) * 41 * SPREAD


Step = tuple[str, str, str, int]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "insert", "insert", "evict", "remove", "evict_to"]),
        st.sampled_from(TEXTS),
        st.sampled_from(TENANTS),
        st.integers(1, 6),
    ),
    max_size=12,
)
CLASSES = st.sampled_from([PrefixCacheState, HashedPrefixCacheState])


def write(state: Any, step: Step) -> Any:
    """Make one step and return its delta."""
    what, text, tenant, number = step
    if what == "insert":
        return insert(state, text, tenant, number)
    if what == "evict":
        return state.evict(tenant, floor=number)
    if what == "remove":
        return state.remove_tenant(tenant)
    return state.evict_to(number)


def grow(cls: type[Any], steps: Sequence[Step], *, has_digests: bool = False) -> Any:
    state = cls()
    if has_digests:
        state.digest()
    for step in steps:
        state.absorb(write(state, step))
    state._check()
    return state


@st.composite
def states(draw: st.DrawFn, count: int) -> list[Any]:
    """Draw states of one class, some with digests already made, some of them parts of others."""
    cls = draw(CLASSES)
    grown = [grow(cls, draw(STEPS), has_digests=draw(st.booleans())) for _ in range(count)]
    if draw(st.booleans()):
        grown[-1] = grown[-1] | grown[0]
    return grown


# The laws


@given(states(3))
def test_the_join_is_a_join(grown: list[Any]) -> None:
    """Idempotent, commutative, associative, with the bottom as its neutral element."""
    a, b, c = grown
    before = [state.copy() for state in grown]
    assert a == a | a == a | type(a)() == type(a)() | a
    assert a | b == b | a
    assert (a | b) | c == a | (b | c)
    assert before == grown


@given(states(2))
def test_the_order_is_that_of_the_join(grown: list[Any]) -> None:
    """One state is below another exactly if joining changes nothing."""
    a, b = grown
    assert (a <= b) == (a | b == b)
    assert a <= a | b
    assert b <= a | b
    assert (a <= b and b <= a) == (a == b)


@given(states(1), STEPS)
def test_what_is_inserted_in_place_is_what_is_inserted_and_absorbed(
    grown: list[Any], steps: list[Step]
) -> None:
    """The same delta, the same state, the same digests, and nothing where nothing is new."""
    [state] = grown
    in_place = state.copy()
    for _, text, tenant, number in steps:
        delta = insert(state, text, tenant, number)
        state.absorb(delta)
        key: Any = text if isinstance(state, PrefixCacheState) else [block_of(text)]
        assert delta == in_place.insert_here(key, tenant=tenant, access=number)
        assert state == in_place
        assert state.digest() == in_place.digest()
    in_place._check()


@pytest.mark.parametrize(
    ("text", "tenant", "access"),
    [("", "w", 1), ("\ud800", "w", 1), ("a", "", 1), ("a", "w", 0), ("x" * 262_145, "w", 1)],
)
def test_an_insertion_in_place_that_is_refused_changes_nothing(
    text: str, tenant: str, access: int
) -> None:
    """As one that makes a delta."""
    state = PrefixCacheState()
    with pytest.raises(LocalError):
        state.insert_here(text, tenant=tenant, access=access)
    assert state.is_bottom()


@given(states(2))
def test_absorbing_returns_exactly_what_was_new(grown: list[Any]) -> None:
    """And leaves the join, with its digests kept up."""
    a, b = grown
    joined, due = a | b, difference(b, a)
    untouched = b.copy()
    state, new = absorb(a, b)
    assert state is a
    assert joined == a
    assert due == new
    assert untouched == b
    a._check()
    new._check()
    assert a.absorb(b).is_bottom()


@given(states(2))
def test_what_was_absorbed_is_not_shared(grown: list[Any]) -> None:
    """Changing a state later does not reach into the one it was absorbed from."""
    a, b = grown
    untouched = b.copy()
    a.absorb(b)
    a.absorb(insert(a, "ab", "v", 9))
    a.absorb(a.evict("w", floor=9))
    assert untouched == b
    b._check()


@given(states(1))
def test_the_decomposition_is_irredundant(grown: list[Any]) -> None:
    """The parts join to the state, and to less without any one of them."""
    (state,) = grown
    parts = list(state.decompose())
    assert join_all([type(state)(), *parts]) == state
    for index, part in enumerate(parts):
        part._check()
        assert not part.is_bottom()
        assert len(list(part.decompose())) == 1
        assert join_all([type(state)(), *parts[:index], *parts[index + 1 :]]) != state


@given(CLASSES, STEPS, st.data())
def test_deltas_in_any_order_and_number_make_the_state(
    cls: type[Any], steps: list[Step], data: st.DataObject
) -> None:
    """Each delta applied at least once, in whatever order."""
    state, deltas = cls(), []
    for step in steps:
        delta = write(state, step)
        assert delta | state == state | delta
        state.absorb(delta)
        assert delta <= state
        deltas.append(delta)
    shuffled = data.draw(st.permutations([*deltas, *deltas[:3]]))
    assert join_all([cls(), *shuffled]) == state


@given(states(2))
def test_equal_states_have_equal_digests_and_bytes(grown: list[Any]) -> None:
    """And unequal ones unequal bytes."""
    a, b = grown
    assert (a == b) == (encode(a) == encode(b)) == (a.digest() == b.digest())
    assert (a | b).digest() == (b | a).digest()
    assert encode(a | b) == encode(b | a)


@given(states(1))
def test_a_state_survives_its_bytes(grown: list[Any]) -> None:
    """Decoding returns the state."""
    (state,) = grown
    read = decode(encode(state))
    assert read == state
    assert isinstance(read, type(state))
    read._check()


@given(states(2))
def test_the_buckets_that_differ_are_enough(grown: list[Any]) -> None:
    """Joining them is joining everything."""
    a, b = grown
    here, there = a.bucket_digests(), b.bucket_digests()
    assert len(here) == len(there) == 256
    differing = [bucket for bucket in range(256) if here[bucket] != there[bucket]]
    part = b.part(differing)
    part._check()
    assert a | part == a | b
    assert b.part(range(256)) == b
    assert b.part([]).is_bottom()
    assert (here == there) == (a == b)


@pytest.mark.parametrize("cls", [PrefixCacheState, HashedPrefixCacheState])
def test_the_same_entry_of_a_later_epoch_has_another_digest(cls: type[Any]) -> None:
    """Or its bucket would not be sent to one who is about to drop the earlier epoch."""
    here = make(cls, ("insert", "a", "w", 1), ("insert", "ab", "w", 1))
    there = make(cls, ("insert", "b", "w", 1), ("remove", "", "w", 0), ("insert", "a", "w", 1))
    differing = [
        bucket
        for bucket, (mine, theirs) in enumerate(
            zip(here.bucket_digests(), there.bucket_digests(), strict=True)
        )
        if mine != theirs
    ]
    assert here | there.part(differing) == here | there


@given(states(1))
def test_a_tenant_s_digests_make_up_the_whole(grown: list[Any]) -> None:
    """The 256 digests of the state are the sums of those of its tenants."""
    (state,) = grown
    tenants = [state.tenant_digests(tenant) for tenant in [*TENANTS, "unknown"]]
    sums = tuple(sum(digests) & (1 << 64) - 1 for digests in zip(*tenants, strict=True))
    assert sums == state.bucket_digests()


def test_it_has_the_protocols_of_its_kind() -> None:
    """A paged container."""
    for cls in (PrefixCacheState, HashedPrefixCacheState):
        for protocol in (Lattice, Container, Paged):
            assert isinstance(cls(), protocol)
        with pytest.raises(TypeError):
            hash(cls())


def test_states_of_two_kinds_do_not_join() -> None:
    """Text and hashes do not mix."""
    with pytest.raises(InvalidTypeError):
        PrefixCacheState().absorb(HashedPrefixCacheState())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        PrefixCacheState() | HashedPrefixCacheState()  # type: ignore[operator]


# The meaning


class Oracle:
    """The lattice as its definition has it: epochs, floors and entries in plain dicts."""

    def __init__(self) -> None:
        self.tenants: dict[str, tuple[int, int, dict[str, int]]] = {}

    def take(self, tenant: str, epoch: int, floor: int, entries: dict[str, int]) -> None:
        held = self.tenants.get(tenant, (0, 0, {}))
        if epoch < held[0]:
            return
        if epoch > held[0]:
            held = (epoch, 0, {})
        floor = max(floor, held[1])
        joined = {
            text: max(entries.get(text, 0), held[2].get(text, 0)) for text in entries | held[2]
        }
        kept = {text: access for text, access in joined.items() if access > floor}
        self.tenants[tenant] = (epoch, floor, kept)

    def value(self) -> dict[str, dict[str, int]]:
        return {tenant: row[2] for tenant, row in self.tenants.items() if row[2]}

    def match(self, text: str) -> Match:
        best: dict[str, int] = {}
        for tenant, row in self.tenants.items():
            for known in row[2]:
                length = next(
                    (n for n in range(min(len(known), len(text)), 0, -1) if known[:n] == text[:n]),
                    0,
                )
                best[tenant] = max(length, best.get(tenant, 0))
        longest = max(best.values(), default=0)
        if not longest:
            return Match((), 0)
        return Match(tuple(sorted(t for t, n in best.items() if n == longest)), longest)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(TENANTS),
            st.integers(0, 2),
            st.integers(0, 4),
            st.dictionaries(st.sampled_from(TEXTS), st.integers(1, 7), max_size=3),
        ),
        max_size=10,
    ),
    st.text(alphabet="abcd", max_size=4),
)
def test_joins_and_matches_agree_with_the_definition(
    rows: list[tuple[str, int, int, dict[str, int]]], request_text: str
) -> None:
    """Whatever rows arrive, in whatever order: the value and each match are the oracle's."""
    state, oracle = PrefixCacheState(), Oracle()
    for tenant, epoch, floor, entries in rows:
        oracle.take(tenant, epoch, floor, entries)
        state.absorb(row_of(tenant, epoch, floor, entries))
        state._check()
    assert oracle.value() == state.value
    assert oracle.match(request_text) == state.match(request_text)
    for tenant, (epoch, floor, _) in oracle.tenants.items():
        assert Generation(epoch, floor) == state.generation(tenant)


def row_of(tenant: str, epoch: int, floor: int, entries: dict[str, int]) -> PrefixCacheState:
    """Make the state of one row."""
    row = PrefixCacheState()
    if epoch or floor:
        row._generations[tenant] = Generation(epoch, floor)
    for text, access in entries.items():
        if access > floor:
            row._place_all([(text, access)], tenant=tenant, epoch=epoch)
    row._check()
    return row


def make(cls: type[Any], *steps: Step) -> Any:
    return grow(cls, steps)


@pytest.mark.parametrize("cls", [PrefixCacheState, HashedPrefixCacheState])
def test_a_removed_tenant_beats_insertions_that_have_not_seen_it(cls: type[Any]) -> None:
    """What another replica inserted into the old epoch meanwhile is gone after the join."""
    here = make(cls, ("insert", "a", "w", 1), ("insert", "b", "v", 1))
    there = here.copy()
    removal = here.remove_tenant("w")
    there.absorb(insert(there, "ab", "w", 99))
    for joined in (there | removal, removal | there, removal | insert(cls(), "ab", "w", 99)):
        assert joined.entry_count("w") == 0
        assert joined.generation("w") == Generation(1, 0)
    assert (there | removal).tenants() == ("v",)


@pytest.mark.parametrize("cls", [PrefixCacheState, HashedPrefixCacheState])
def test_a_removed_tenant_can_come_back(cls: type[Any]) -> None:
    """What is inserted after the removal stays, also where the removal comes later."""
    here = make(cls, ("insert", "a", "w", 5), ("remove", "", "w", 0))
    again = insert(here, "ab", "w", 2)
    behind = make(cls, ("insert", "a", "w", 5), ("insert", "abc", "w", 9))
    behind.absorb(again)
    assert [access for _, access in behind.entries("w")] == [2]
    behind.absorb(here)
    assert [access for _, access in behind.entries("w")] == [2]


@pytest.mark.parametrize("cls", [PrefixCacheState, HashedPrefixCacheState])
def test_removing_a_tenant_without_entries_beats_its_first_insertion_elsewhere(
    cls: type[Any],
) -> None:
    """Whether this replica has seen another removal of it before, or never heard of it."""
    for here in (cls(), make(cls, ("insert", "a", "w", 1), ("remove", "", "w", 0))):
        there = here.copy()
        there.absorb(insert(there, "ab", "w", 9))
        assert (there | here.remove_tenant("w")).entry_count("w") == 0


@pytest.mark.parametrize("cls", [PrefixCacheState, HashedPrefixCacheState])
def test_the_higher_epoch_of_two_removals_beats_what_came_between(cls: type[Any]) -> None:
    """One that was told its epoch wins over a removal before it, and over insertions since."""
    here = make(cls, ("insert", "a", "w", 1))
    there = here.copy()
    there.absorb(there.remove_tenant("w", epoch=10))
    there.absorb(insert(there, "ab", "w", 9))
    joined = there | here.remove_tenant("w", epoch=20)
    assert (joined.entry_count("w"), joined.generation("w")) == (0, Generation(20, 0))
    assert joined.remove_tenant("w", epoch=5).generation("w") == Generation(21, 0)


@pytest.mark.parametrize("cls", [PrefixCacheState, HashedPrefixCacheState])
@pytest.mark.parametrize("epoch", [0, -1, 1 << 63])
def test_an_epoch_out_of_range_is_refused(cls: type[Any], epoch: int) -> None:
    """It would not be read back."""
    with pytest.raises(InvalidValueError):
        cls().remove_tenant("w", epoch=epoch)


@pytest.mark.parametrize("cls", [PrefixCacheState, HashedPrefixCacheState])
def test_eviction_holds_against_what_comes_late(cls: type[Any]) -> None:
    """An entry at or under the floor does not come back from a replica that still has it."""
    here = make(cls, ("insert", "a", "w", 1), ("insert", "b", "w", 5))
    stale = here.copy()
    here.absorb(here.evict("w", floor=3))
    assert [access for _, access in here.entries("w")] == [5]
    assert here.absorb(stale).is_bottom()
    assert insert(here, "a", "w", 3).is_bottom()
    assert here | insert(cls(), "a", "w", 4) != here


@pytest.mark.parametrize("cls", [PrefixCacheState, HashedPrefixCacheState])
def test_an_eviction_in_place_is_one_that_was_joined(cls: type[Any]) -> None:
    """The same delta and the same state, with digests as well; and the bottom for nothing."""
    entries = [("insert", text, "w", number) for number, text in enumerate(TEXTS, 1)]
    there = make(cls, *entries)
    there.digest()
    here = there.copy()

    delta = here.evict_here("w", floor=2)
    here._check()

    assert delta == there.evict("w", floor=2)
    assert here == there | delta
    assert here.digest() == (there | delta).digest() != there.digest()
    assert here.evict_here("w", floor=2).is_bottom()
    assert here.evict_here("nobody", floor=9).is_bottom()


@pytest.mark.parametrize("cls", [PrefixCacheState, HashedPrefixCacheState])
def test_a_touch_elsewhere_saves_from_eviction(cls: type[Any]) -> None:
    """The highest access counts, whichever comes first."""
    base = make(cls, ("insert", "a", "w", 1))
    eviction, touch = base.evict("w", floor=3), insert(base, "a", "w", 4)
    assert [access for _, access in (base | eviction | touch).entries("w")] == [4]
    assert base | eviction | touch == base | touch | eviction


@pytest.mark.parametrize("cls", [PrefixCacheState, HashedPrefixCacheState])
def test_two_who_evict_do_not_evict_twice(cls: type[Any]) -> None:
    """Floors do not add up."""
    state = make(cls, *(("insert", text, "w", n) for n, text in enumerate(TEXTS, 1)))
    both = state.evict("w", floor=2) | state.copy().evict("w", floor=3)
    assert (state | both).entry_count("w") == len(TEXTS) - 3


def test_deltas_are_small() -> None:
    """Removing a tenant or evicting any number of entries is a dozen bytes and the name."""
    state = PrefixCacheState()
    for number in range(1000):
        state.absorb(state.insert(f"text {number}", tenant="w", access=1_700_000_000 + number))
    assert len(pack(state.remove_tenant("w").to_wire())) <= 12
    assert len(pack(state.evict("w", floor=1_700_000_500).to_wire())) <= 15
    assert len(pack(state.insert("text", tenant="w", access=1_700_009_999).to_wire())) <= 23


def test_evicting_to_a_size_drops_the_oldest_of_all_tenants() -> None:
    """And says nothing of tenants that lose nothing."""
    state = make(
        PrefixCacheState,
        ("insert", "abc", "v", 1),
        ("insert", "abd", "w", 3),
        ("insert", "ba", "w", 2),
    )
    delta = state.evict_to(4)
    state.absorb(delta)
    state._check()
    assert state.value == {"w": {"abd": 3}}
    assert state.evict_to(4).is_bottom()
    assert [state.generation(tenant) for tenant in "vw"] == [Generation(0, 2), Generation(0, 2)]


def test_a_repeated_insertion_is_no_write() -> None:
    """Nothing travels when nothing is new."""
    state = make(PrefixCacheState, ("insert", "a", "w", 5))
    assert state.insert("a", tenant="w", access=5).is_bottom()
    assert state.insert("a", tenant="w", access=4).is_bottom()
    assert not state.insert("a", tenant="w", access=6).is_bottom()


def test_a_delta_that_is_all_new_comes_back_itself() -> None:
    """So that what was new need not be built again."""
    state = make(PrefixCacheState, ("insert", "a", "w", 5))
    delta = state.insert("b", tenant="w", access=1) | state.insert("b", tenant="v", access=1)
    assert state.absorb(delta) is delta
    assert state.absorb(delta).is_bottom()


def test_touching_raises_only_what_is_there() -> None:
    """An entry that is not held is an error."""
    state = make(PrefixCacheState, ("insert", "ab", "w", 5))
    assert state.touch("ab", tenant="w", access=7) == state.insert("ab", tenant="w", access=7)
    with pytest.raises(UnknownKeyError):
        state.touch("a", tenant="w", access=7)


def test_blocks_travel_only_when_new_or_raised() -> None:
    """A chain of which a part is known sends the rest."""
    state = HashedPrefixCacheState()
    chain = text_chain("abcdefgh", block_characters=2)
    state.absorb(state.insert_blocks(chain[:2], tenant="w", access=5))
    assert [
        block for block, _ in state.insert_blocks(chain, tenant="w", access=5).entries("w")
    ] == (sorted(chain[2:]))
    state.absorb(state.insert_blocks(chain, tenant="w", access=5))
    assert state.match(chain) == Match(("w",), 4)
    assert state.match_each(chain[:3]) == {"w": 3}
    assert state.match_tenant(chain, tenant="v") == 0


def test_no_text_is_in_the_bytes_of_hash_mode() -> None:
    """Only names and hashes."""
    state = HashedPrefixCacheState()
    chain = text_chain("a secret prompt!", block_characters=4)
    state.absorb(state.insert_blocks(chain, tenant="w", access=5))
    data = encode(state)
    assert not any(piece in data for piece in (b"secr", b"a se", b"prom", b"mpt!"))


# Refusals


@pytest.mark.parametrize(
    ("text", "tenant", "access", "error"),
    [
        ("", "w", 1, InvalidValueError),
        ("\ud800", "w", 1, InvalidValueError),
        (b"a", "w", 1, InvalidTypeError),
        ("a" * 262_145, "w", 1, LimitError),
        ("a", "", 1, InvalidValueError),
        ("a", "w" * 1025, 1, LimitError),
        ("a", "w", 0, InvalidValueError),
        ("a", "w", 2**63, InvalidValueError),
        ("a", "w", True, InvalidTypeError),
    ],
)
def test_what_cannot_be_kept_is_refused(
    text: str, tenant: str, access: int, error: type[Exception]
) -> None:
    """Before anything is made of it."""
    with pytest.raises(error):
        PrefixCacheState().insert(text, tenant=tenant, access=access)


@pytest.mark.parametrize(
    ("block", "error"), [([1], InvalidTypeError), (True, InvalidTypeError), (-1, InvalidValueError)]
)
def test_what_is_no_block_is_refused(block: Any, error: type[Exception]) -> None:
    """Whatever the rest of the chain is."""
    with pytest.raises(error):
        HashedPrefixCacheState().insert_blocks([1, block], tenant="w", access=1)


def test_the_tree_s_size_is_enforced_on_local_insertions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is new counts."""
    monkeypatch.setattr("meshlib.crdt.prefix_cache.states.TREE_CHARACTERS_MAX", 4)
    state = make(PrefixCacheState, ("insert", "abc", "w", 1))
    with pytest.raises(LimitError):
        state.insert("abdd", tenant="w", access=1)
    assert len(state.insert("abd", tenant="w", access=1)) == 1
    assert len(state.insert("abc", tenant="v", access=1)) == 1


def test_the_blocks_are_limited_on_local_insertions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Touches need no room."""
    monkeypatch.setattr("meshlib.crdt.prefix_cache.states.BLOCKS_MAX", 2)
    state = HashedPrefixCacheState()
    state.absorb(state.insert_blocks([1, 2], tenant="w", access=1))
    with pytest.raises(LimitError):
        state.insert_blocks([3], tenant="w", access=1)
    assert len(state.insert_blocks([1, 2], tenant="w", access=2)) == 2
    with pytest.raises(LimitError):
        state.insert_here([2, 3], tenant="w", access=2)
    assert len(state) == 2
    assert len(state.insert_here([1, 2], tenant="w", access=2)) == 2


@pytest.mark.parametrize("cls", [PrefixCacheState, HashedPrefixCacheState])
def test_joining_has_a_limit_of_its_own(cls: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Well above that of insertions, and what is over it is refused with nothing changed."""
    state = make(cls, ("insert", "a", "w", 1), ("insert", "b", "w", 1))
    before = state.copy()
    delta = make(cls, ("insert", "ab", "v", 1), ("insert", "ba", "v", 1), ("insert", "a", "v", 1))
    monkeypatch.setattr(cls, "_size_max", 1)
    with pytest.raises(LimitExceeded):
        state.absorb(delta)
    assert before == state


@pytest.mark.parametrize("cls", [PrefixCacheState, HashedPrefixCacheState])
def test_tenants_are_limited(cls: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Removed ones included: an error to the caller, and one of the peer."""
    monkeypatch.setattr("meshlib.crdt.prefix_cache.tenant_cache.TENANTS_MAX", 2)
    state = make(cls, ("insert", "a", "v", 1), ("insert", "a", "w", 1), ("remove", "", "w", 0))
    with pytest.raises(LimitError):
        insert(state, "a", "x", 1)
    with pytest.raises(LimitExceeded):
        state.absorb(insert(cls(), "a", "x", 1))
    assert state.tenants() == ("v",)
    assert not insert(state, "a", "w", 1).is_bottom()


# Wire


def test_a_shared_prefix_travels_once() -> None:
    """Texts are written as what they add to the one before."""
    state = PrefixCacheState()
    for number in range(100):
        state.absorb(state.insert("s" * 5000 + f"{number:05}", tenant="w", access=1))
    assert len(encode(state)) < 6000


def of_workers(texts: Iterable[str], count: int) -> PrefixCacheState:
    """Return a cache in which so many workers have all of these texts."""
    state = PrefixCacheState()
    for number, text in enumerate(texts, 1):
        for worker in range(count):
            state.absorb(state.insert(text, tenant=f"w{worker:04}", access=number + worker))
    return state


def test_what_workers_share_travels_once() -> None:
    """A text that a hundred have, and one that begins as another's."""
    state = of_workers(["s" * 5000, "t" * 5000], 100)
    state.absorb(state.insert("s" * 4000 + "x", tenant="other", access=1))
    data = encode(state)

    assert len(data) < 10_000 + 101 * 40
    assert decode(data) == state
    assert encode(decode(data)) == data


def test_pages_have_what_workers_share_once() -> None:
    """However many texts there are: whoever has one of them comes with it."""
    texts = [f"{number:03}" * 1000 for number in range(50)]
    state = of_workers(texts, 20)
    state.absorb(state.remove_tenant("w0003", epoch=7))
    state.absorb(state.evict("w0004", floor=20))
    parts = list(state.bucket_parts(range(256), size_max=lambda: 20_000))

    assert len(parts) > 5
    assert sum(len(encode(part)) for part in parts) < 2 * 50 * 3000
    assert state == functools.reduce(operator.or_, parts)
    for part in parts:
        part._check()


@pytest.mark.parametrize(("size_max", "least", "most"), [(1 << 20, 200, 256), (1536, 70, 80)])
def test_short_texts_end_a_part_by_their_number_or_their_size(
    size_max: int, least: int, most: int
) -> None:
    """A few hundred take long enough; where little may be sent at a time, what fits goes."""
    state = of_workers([f"{number:020}" for number in range(1000)], 1)
    parts = list(state.bucket_parts(range(256), size_max=lambda: size_max))

    assert least <= max(map(len, parts)) <= most
    assert state == functools.reduce(operator.or_, parts)


def test_pages_hold_a_bounded_number_of_entries() -> None:
    """Those of a text that many have are parted too: to take one in takes time, not bytes."""
    state = of_workers(["s" * 1000], 500)
    parts = list(state.bucket_parts(range(256), size_max=lambda: 12_800))

    assert len(parts) > 4
    assert max(map(len, parts)) <= 101
    assert state == functools.reduce(operator.or_, parts)


def test_pages_hold_a_bounded_number_of_blocks() -> None:
    """A block has eight bytes: by their bytes alone a page of them would take 100 ms to make."""
    state = HashedPrefixCacheState()
    for worker in range(4):
        blocks = [number << 50 | worker for number in range(1, 301)]
        state.absorb(state.insert_blocks(blocks, tenant=f"w{worker}", access=worker + 1))
    parts = list(state.bucket_parts(range(256), size_max=lambda: 12_800))

    assert len(parts) > 11
    assert max(map(len, parts)) <= 101
    assert state == functools.reduce(operator.or_, parts)


@given(st.lists(st.tuples(st.integers(0, 3), st.text("ab\N{GRINNING FACE}", max_size=40))))
def test_what_is_shared_is_read_as_it_was_written(placed: list[tuple[int, str]]) -> None:
    """Whatever texts share, in a row and between rows; and there is one way to write it."""
    state = PrefixCacheState()
    for number, (worker, text) in enumerate(placed, 1):
        whole = "s" * 20 * (len(text) % 3) + text + "e" * 17
        state.absorb(state.insert(whole, tenant=f"w{worker}", access=number))
    data = encode(state)

    assert decode(data) == state
    assert encode(decode(data)) == data


LONG = "s" * 40
SHARED_ROW = ("v", 0, 0, 1, (0, LONG, 0))


@pytest.mark.parametrize(
    "row",
    [
        (0, LONG, 0),
        ((0, 39), "s", 0),
        ((1, 40), "", 0),
        ((0, 41), "", 0),
        ((0, 15), "x" * 5, 0),
        ((0, 40), "", 0, (0, 40), "", 0),
        ((0,), "", 0),
        ((0, 40, 0), "", 0),
        ((-1, 40), "", 0),
        ((True, 40), "", 0),
        (None, LONG, 0),
    ],
)
def test_what_rows_share_is_written_in_one_way(row: tuple[Any, ...]) -> None:
    """Anything else is refused: equal states have equal bytes."""
    good = (SHARED_ROW, ("w", 0, 0, 1, ((0, 40), "", 0)))
    assert PrefixCacheState.from_wire(good).to_wire() == good

    with pytest.raises(DecodeError):
        PrefixCacheState.from_wire((SHARED_ROW, ("w", 0, 0, 1, row)))


def test_what_rows_share_has_a_bound() -> None:
    """Each character that is written lets 1,024 be taken by other rows."""
    state = of_workers(["s" * 3000], 1200)
    assert len(encode(state)) > 2 * 3000
    assert decode(encode(state)) == state

    rows = tuple((f"x{n:04}", 0, 0, 1, ((0, 3000), "", 0)) for n in range(1025))
    first = ("w", 0, 0, 1, (0, "s" * 3000, 0))
    PrefixCacheState.from_wire((first, *rows[:1024]))
    with pytest.raises(DecodeError):
        PrefixCacheState.from_wire((first, *rows))


def test_what_is_shared_has_a_bound() -> None:
    """A small message cannot make its reader build large texts without end."""
    state = PrefixCacheState()
    for number in range(3000):
        state.absorb(state.insert("s" * 3000 + f"{number:05}", tenant="w", access=1))
    data = encode(state)
    assert len(data) > 3000 * 3000 / 1024
    assert decode(data) == state
    rows = [0, "s" * 3000, 0, *(item for n in range(2000) for item in (3000, chr(256 + n), 0))]
    PrefixCacheState.from_wire((("w", 0, 0, 1, tuple(rows[:3000])),))
    with pytest.raises(DecodeError):
        PrefixCacheState.from_wire((("w", 0, 0, 1, tuple(rows)),))


TEXT_GOLDEN = bytes.fromhex(
    "93ac7072656669785f6361636865019395a1760002049600a36162630102a164"
    "0095a1770100069300a262610095a17801000090"
)
HASH_GOLDEN = bytes.fromhex(
    "93b17072656669785f63616368655f68617368019396a176000204c410525252"
    "52525252527b7b7b7b7b7b7b7b92010096a177010006c408cdcdcdcdcdcdcdcd"
    "910096a178010000c40090"
)


def golden(cls: type[Any]) -> Any:
    """Make a state with everything in it: a floor, an epoch, shared prefixes."""
    return make(
        cls,
        ("insert", "a", "v", 1),
        ("evict", "", "v", 2),
        ("insert", "abc", "v", 5),
        ("insert", "abd", "v", 4),
        ("insert", "b", "w", 1),
        ("remove", "", "w", 0),
        ("insert", "ba", "w", 6),
        ("insert", "b", "x", 6),
        ("remove", "", "x", 0),
    )


@pytest.mark.parametrize(
    ("cls", "expected"), [(PrefixCacheState, TEXT_GOLDEN), (HashedPrefixCacheState, HASH_GOLDEN)]
)
def test_format_version_1_stays_what_it_is(cls: type[Any], expected: bytes) -> None:
    """Golden bytes, read and written."""
    assert encode(golden(cls)) == expected
    assert decode(expected) == golden(cls)


def row(*changes: tuple[int, Any]) -> Callable[[], Any]:
    wire = ["w", 1, 2, 4, (0, "ab", 1, 1, "c", 0)]
    for index, value in changes:
        wire[index] = value
    return lambda: (tuple(wire),)


BAD_TEXTS: dict[str, Any] = {
    "no array": 5,
    "no row": (5,),
    "a short row": (("w", 1, 2, 4),),
    "an empty tenant": row((0, ""))(),
    "a tenant of bytes": row((0, b"w"))(),
    "a negative epoch": row((1, -1))(),
    "a bool for an epoch": row((1, True))(),
    "an epoch over 63 bits": row((1, 2**63))(),
    "a floor that is not under the accesses": row((2, 4))(),
    "an oldest access without entries": row((4, ()))(),
    "nothing known": (("w", 0, 0, 0, ()),),
    "two thirds of an entry": row((4, (0, "ab")))(),
    "an empty text": row((4, (0, "", 0)))(),
    "a text of bytes": row((4, (0, b"ab", 0)))(),
    "more shared than there is": row((4, (0, "ab", 0, 3, "c", 0)))(),
    "less shared than there is": row((4, (0, "ab", 0, 0, "ac", 0)))(),
    "texts out of order": row((4, (0, "b", 0, 0, "a", 0)))(),
    "a text twice": row((4, (0, "ab", 0, 1, "b", 0)))(),
    "a shorter text after a longer": row((4, (0, "ab", 0, 0, "a", 0)))(),
    "accesses not from the oldest": row((4, (0, "ab", 1)))(),
    "an access over 63 bits": row((4, (0, "ab", 0, 1, "c", 2**63 - 1)))(),
    "a negative access": row((4, (0, "ab", 0, 1, "c", -1)))(),
    "tenants out of order": (("w", 1, 0, 0, ()), ("v", 1, 0, 0, ())),
    "a tenant twice": (("w", 1, 0, 0, ()), ("w", 1, 0, 0, ())),
}


def test_the_good_row_is_good() -> None:
    """Each of the bad ones differs from it in one thing."""
    state = PrefixCacheState.from_wire(row()())
    assert state.value == {"w": {"ab": 5, "ac": 4}}
    assert state.generation("w") == Generation(1, 2)


@pytest.mark.parametrize("wire", BAD_TEXTS.values(), ids=BAD_TEXTS.keys())
def test_text_that_is_not_canonical_is_refused(wire: Any) -> None:
    """With a `DecodeError` and nothing else."""
    with pytest.raises(DecodeError):
        PrefixCacheState.from_wire(wire)


BLOCK = (7).to_bytes(8, "big")
BAD_BLOCKS: dict[str, Any] = {
    "half a block": (("w", 0, 0, 1, BLOCK[:4], (0,)),),
    "more accesses than blocks": (("w", 0, 0, 1, BLOCK, (0, 0)),),
    "blocks that are text": (("w", 0, 0, 1, "12345678", (0,)),),
    "a block twice": (("w", 0, 0, 1, BLOCK * 2, (0, 0)),),
    "an access at the floor": (("w", 0, 1, 1, BLOCK, (0,)),),
    "an access that is no integer": (("w", 0, 0, 1, BLOCK, (0.0,)),),
    "nothing known": (("w", 0, 0, 0, b"", ()),),
}


@pytest.mark.parametrize("wire", BAD_BLOCKS.values(), ids=BAD_BLOCKS.keys())
def test_blocks_that_are_not_canonical_are_refused(wire: Any) -> None:
    """With a `DecodeError` and nothing else."""
    with pytest.raises(DecodeError):
        HashedPrefixCacheState.from_wire(wire)


def test_what_a_peer_sends_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts, names, tenants and the tree: each over its limit is a `LimitExceeded`."""
    long = "x" * 200_000
    for wire in (
        (("w", 0, 0, 1, (0, long * 2, 0)),),
        (("w", 0, 0, 1, (0, long, 0, 200_000, long, 0)),),
        (("w" * 1025, 1, 0, 0, ()),),
    ):
        with pytest.raises(LimitExceeded):
            PrefixCacheState.from_wire(wire)
    monkeypatch.setattr("meshlib.crdt.prefix_cache.wire.TENANTS_MAX", 1)
    with pytest.raises(LimitExceeded):
        PrefixCacheState.from_wire((("v", 1, 0, 0, ()), ("w", 1, 0, 0, ())))
    # So few entries that they could not be over the limit are not counted against it.
    monkeypatch.setattr(PrefixCacheState, "_light_max", 1)
    monkeypatch.setattr("meshlib.crdt.prefix_cache.states.TREE_CHARACTERS_MAX", 1)
    with pytest.raises(LimitExceeded):
        PrefixCacheState.from_wire((("w", 0, 0, 1, (0, "abcde", 0, 0, "b", 0)),))


@pytest.mark.parametrize("kind", [PrefixCacheState, HashedPrefixCacheState])
def test_a_write_is_placed_once(kind: type[Cache]) -> None:
    """Neither the writer's delta nor the one that its peer reads becomes a store of its own."""
    state: Any = kind()
    peer: Any = kind()
    state.digest()
    delta = insert(state, "ab", "w", 1)
    state.absorb(delta)
    received: Any = decode(encode(delta))
    peer.absorb(received)

    assert delta._built is None
    assert received._built is None
    assert state == peer
    delta._check()


@pytest.mark.parametrize("kind", [PrefixCacheState, HashedPrefixCacheState])
def test_a_light_cache_becomes_a_store_by_its_entries(kind: type[Cache]) -> None:
    """And is the same cache then, to the byte."""
    light: Any = kind()
    built: Any = kind()
    built._build()
    for number, text in enumerate(TEXTS):
        for state in (light, built):
            state.absorb(insert(state, text, TENANTS[number % 2], number + 1))
    light = decode(encode(light))
    assert light._built is None
    assert light == built
    assert encode(light) == encode(built)
    light._build()
    assert encode(light) == encode(built)
    assert light.digest() == built.digest()


TREES = st.recursive(
    st.one_of(st.integers(-1, 3), st.sampled_from(["", "w", "ab", b"", BLOCK]), st.booleans()),
    lambda inner: st.lists(inner, max_size=6).map(tuple),
    max_leaves=12,
)


@given(CLASSES, TREES)
def test_no_tree_does_worse_than_a_decode_error(cls: type[Any], wire: Any) -> None:
    """And one that is read is written as it was."""
    try:
        state = cls.from_wire(wire)
    except (DecodeError, LimitExceeded):
        return
    state._check()
    assert unpack(pack(state.to_wire())) == unpack(pack(wire))


@given(states(1), st.data())
def test_damaged_bytes_do_no_worse_than_a_decode_error(
    grown: list[Any], data: st.DataObject
) -> None:
    """One byte changed in a true encoding."""
    wire = bytearray(pack(grown[0].to_wire()))
    wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        state = type(grown[0]).from_wire(unpack(bytes(wire)))
    except (DecodeError, LimitExceeded):
        return
    state._check()
    assert unpack(pack(state.to_wire())) == unpack(bytes(wire))


def test_every_order_of_three_replicas_agrees() -> None:
    """The small world of one tenant and one text, all orders."""
    for cls in (PrefixCacheState, HashedPrefixCacheState):
        base = make(cls, ("insert", "a", "w", 1))
        deltas = [
            base.remove_tenant("w"),
            base.evict("w", floor=2),
            insert(base, "a", "w", 3),
            insert(base, "ab", "w", 2),
        ]
        joined = [join_all([base, *order]) for order in permutations(deltas)]
        assert all(state == joined[0] for state in joined)
