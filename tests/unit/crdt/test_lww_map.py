"""The map of numbered entries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.clock import Stamp
from meshlib.codec import encode_value
from meshlib.crdt import LWWEntry, LWWMap
from meshlib.errors import (
    DecodeError,
    InvalidTypeError,
    InvalidValueError,
    LimitError,
    UnknownKeyError,
)
from meshlib.identity import ActorId, actor_id

ALICE = actor_id("alice", 1)
BOB = actor_id("bob", 1)
Map = LWWMap[str, object]


def stamp(wall_ms: int, actor: ActorId = ALICE) -> Stamp:
    return Stamp(wall_ms, 0, actor)


def written(*writes: tuple[str, object, Stamp]) -> Map:
    """Return the map after some writes; a value of None removes."""
    state = Map()
    for key, value, at in writes:
        delta = state.remove(key, stamp=at) if value is None else state.set(key, value, stamp=at)
        state.absorb(delta)
    state._check()
    return state


def test_the_later_write_of_a_key_stays() -> None:
    """Both orders of arrival end with the later value, and with both changes counted."""
    early = Map().set("k", 1, stamp=stamp(1))
    late = Map().set("k", 2, stamp=stamp(2, BOB))
    assert early | late == late | early
    assert 2 == (early | late)["k"]
    assert 2 == (early | late).version("k")


def test_a_removal_hides_the_key_and_counts_as_a_change() -> None:
    """The key has no value, the tombstone is held, the version goes on."""
    state = written(("k", 1, stamp(1)), ("k", None, stamp(2)))
    assert "k" not in state
    assert 0 == len(state)
    assert 1 == state.tombstone_count
    assert 2 == state.version("k")
    assert "default" == state.get("k", "default")
    with pytest.raises(UnknownKeyError):
        state["k"]
    state.absorb(state.set("k", 3, stamp=stamp(3)))
    assert 3 == state.version("k")


def test_the_entries_of_some_writers_are_told_with_their_numbers() -> None:
    """Tombstones included, by who wrote a key last; other writers' keys are passed over."""
    state, again = Map(), actor_id("alice", 2)
    state.absorb(state.set("kept", 1, stamp=stamp(1), sequence=1))
    state.absorb(state.set("gone", 2, stamp=stamp(2), sequence=2))
    state.absorb(state.remove("gone", stamp=stamp(3), sequence=3))
    state.absorb(state.set("taken over", 3, stamp=stamp(4), sequence=4))
    state.absorb(state.set("taken over", 4, stamp=stamp(5, BOB), sequence=1))
    state.absorb(state.set("restarted", 5, stamp=stamp(6, again), sequence=1))
    alices = [("gone", ALICE, 3), ("kept", ALICE, 1)]
    assert alices == sorted(state.written_by({ALICE}))
    assert [*alices, ("taken over", BOB, 1)] == sorted(state.written_by({ALICE: 0, BOB: 0}))
    assert [] == list(state.written_by(()))


def test_a_version_starts_at_one_and_grows_by_one() -> None:
    """Changes of one writer are counted one by one."""
    state = Map()
    assert 0 == state.version("k")
    for number in range(1, 5):
        state.absorb(state.set("k", "same", stamp=stamp(number)))
        assert number == state.version("k")


def test_a_restarted_writer_goes_on_counting_its_name() -> None:
    """Changes are counted by name, so the next incarnation does not start a second count."""
    state = written(("k", 1, stamp(1)), ("k", 2, stamp(2)))
    state.absorb(state.set("k", 3, stamp=stamp(3, actor_id("alice", 2))))
    entry = state.entry("k")
    assert entry is not None
    assert ((ALICE[:8], 3),) == entry.changes
    assert actor_id("alice", 2) == entry.actor


def test_an_older_concurrent_write_is_new_as_a_change_only() -> None:
    """It does not change the value; what was new is that it happened."""
    state = written(("k", "late", stamp(9)))
    new = state.absorb(written(("k", "early", stamp(1, BOB))))
    assert "late" == state["k"]
    assert 2 == state.version("k")
    assert "k" not in new
    assert 1 == new.version("k")
    state._check()


def test_absorbing_what_is_known_returns_the_bottom() -> None:
    """A repeated delta changes nothing and is told so."""
    state = written(("k", 1, stamp(1)), ("j", 2, stamp(2)))
    assert state.absorb(state.copy()).is_bottom()


def test_equal_stamps_of_a_value_and_a_removal_keep_the_value() -> None:
    """A stamp that was used twice still leaves all replicas with the same entry."""
    base = written(("k", 1, stamp(1)))
    removal = base.remove("k", stamp=stamp(5))
    value = base.set("k", 2, stamp=stamp(5))
    assert removal | value == value | removal
    assert 2 == (removal | value)["k"]


def test_a_write_that_would_lose_is_refused() -> None:
    """A stamp that is not later than the entry's is an error, not a silent loss."""
    state = written(("k", 1, stamp(5)))
    with pytest.raises(InvalidValueError):
        state.set("k", 2, stamp=stamp(5))
    with pytest.raises(InvalidValueError):
        state.remove("k", stamp=stamp(4))


def test_removing_an_absent_key_is_an_error() -> None:
    """An unknown key and a removed one have nothing to remove."""
    with pytest.raises(UnknownKeyError):
        Map().remove("k", stamp=stamp(1))
    with pytest.raises(UnknownKeyError):
        written(("k", 1, stamp(1)), ("k", None, stamp(2))).remove("k", stamp=stamp(3))


def test_a_value_is_frozen_when_it_is_set() -> None:
    """A later change of a list that was put does not reach the map."""
    tags = ["a"]
    state = Map().set("k", tags, stamp=stamp(1))
    tags.append("b")
    assert ("a",) == state["k"]


def test_keys_and_items_come_sorted() -> None:
    """The order does not depend on the order of writes, and tombstones are left out."""
    state = written(
        ("c", 3, stamp(1)), ("a", 1, stamp(2)), ("b", 2, stamp(3)), ("b", None, stamp(4))
    )
    assert ["a", "c"] == state.keys() == list(state)
    assert [("a", 1), ("c", 3)] == list(state.items())
    assert {"a": 1, "c": 3} == state.value
    assert ["a", "b", "c"] == [key for key, _ in state.entries()]


def test_bad_input_is_refused() -> None:
    """Keys, values, stamps and sequences are checked before anything is made."""
    with pytest.raises(InvalidTypeError):
        Map().set(1.5, "v", stamp=stamp(1))  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError):
        Map().set("k", {1}, stamp=stamp(1))
    with pytest.raises(LimitError):
        Map().set("k" * 2000, "v", stamp=stamp(1))
    with pytest.raises(InvalidValueError):
        Map().set("k", "v", stamp=stamp(1), sequence=-1)
    with pytest.raises(InvalidTypeError):
        Map().absorb({})  # type: ignore[arg-type]


def test_the_digest_is_of_live_content() -> None:
    """Tombstones do not change it; a value, its stamp and its key do."""
    state = written(("k", 1, stamp(1)))
    with_tombstone = written(("k", 1, stamp(1)), ("j", 2, stamp(2)), ("j", None, stamp(3)))
    assert state.digest() == with_tombstone.digest()
    assert state.bucket_digests() != with_tombstone.bucket_digests()
    assert state.digest() != written(("k", 2, stamp(1))).digest()
    assert state.digest() != written(("k", 1, stamp(2))).digest()
    assert Map().digest() == 0


def test_digests_follow_changes() -> None:
    """A digest that was kept up with every change is that of a fresh copy."""
    state = Map()
    seen = []
    for number in range(1, 20):
        state.absorb(state.set(f"k{number % 7}", number, stamp=stamp(10 * number)))
        if number % 3 == 0:
            state.absorb(state.remove(f"k{number % 7}", stamp=stamp(10 * number + 3)))
            state.absorb(state.set(f"k{number % 7}", 0, stamp=stamp(10 * number + 6)))
        seen.append(state.digest())
        state._check()
    assert len(seen) == len(set(seen))
    state.absorb(state.remove("k1", stamp=stamp(900)))
    state._check()
    assert 1 == state.collect(lambda entry: True)
    state._check()


def test_the_parts_of_all_buckets_are_the_map() -> None:
    """Each entry is in one bucket, and a part holds exactly that of its buckets."""
    state = written(*((f"k{n}", n, stamp(n + 1)) for n in range(50)), ("k3", None, stamp(90)))
    parts = [state.part([bucket]) for bucket in range(256)]
    joined = Map()
    for part in parts:
        joined.absorb(part)
    assert state == joined
    assert len(state) + 1 == sum(len(part) + part.tombstone_count for part in parts)
    assert 256 == len(state.bucket_digests())


def test_only_the_bucket_of_a_changed_key_differs() -> None:
    """Two maps that differ in one entry differ in one bucket, whose part repairs it."""
    one = written(*((f"k{n}", n, stamp(n + 1)) for n in range(50)))
    two = one.copy()
    two.absorb(two.set("k7", "new", stamp=stamp(99)))
    pairs = zip(one.bucket_digests(), two.bucket_digests(), strict=True)
    different = [bucket for bucket, (a, b) in enumerate(pairs) if a != b]
    assert 1 == len(different)
    one.absorb(two.part(different))
    assert one == two


def test_a_transfer_does_not_bring_back_what_was_removed_here() -> None:
    """An entry that the clock covers and the map lacks is dead; others are joined."""
    old = Map().set("dead", 1, stamp=stamp(1), sequence=1)
    new = Map().set("new", 2, stamp=stamp(3), sequence=3)
    unnumbered = Map().set("plain", 3, stamp=stamp(4))
    state = Map()
    absorbed = state.absorb_transfer(
        old | new | unnumbered, covers=lambda actor, sequence: sequence <= 2
    )
    assert ["new", "plain"] == state.keys()
    assert new | unnumbered == absorbed


def test_a_transfer_joins_what_is_held_whatever_the_clock_covers() -> None:
    """The rule is for absent keys only: a held entry takes the later write."""
    state = Map().set("k", 1, stamp=stamp(1), sequence=1)
    state.absorb_transfer(state.set("k", 2, stamp=stamp(2), sequence=2), covers=lambda a, s: True)
    assert 2 == state["k"]


def test_collecting_drops_stable_tombstones_only() -> None:
    """A tombstone that is not stable stays, and so does every value."""
    state = Map()
    for sequence, key in enumerate(("a", "b", "c"), 1):
        state.absorb(state.set(key, 1, stamp=stamp(sequence), sequence=sequence))
    for sequence, key in enumerate(("a", "b"), 4):
        state.absorb(state.remove(key, stamp=stamp(sequence), sequence=sequence))
    assert 1 == state.collect(lambda entry: entry.sequence <= 4)
    assert state.entry("a") is None
    assert state.entry("b") is not None
    assert ["c"] == state.keys()
    state._check()


def test_the_latest_stamp_is_told() -> None:
    """For the quarantine of writes from a clock that is ahead."""
    assert Map().latest_stamp() is None
    assert stamp(9) == written(("a", 1, stamp(9)), ("b", 1, stamp(3))).latest_stamp()


def test_maps_are_not_hashable() -> None:
    """A container changes in place and so cannot be a key."""
    with pytest.raises(TypeError):
        hash(Map())


ONE = encode_value(1)


def tree(**changed: object) -> tuple[object, ...]:
    """Return the tree of a map of one write, with some parts changed."""
    parts: dict[str, object] = {
        "actors": (ALICE,),
        "base_ms": 1,
        "keys": ("k",),
        "numbers": (b"\x00", b"\x00", b"\x00", b"\x07"),
        "payloads": (ONE,),
        "changes": (1,),
        "counts": (),
    }
    return tuple((parts | changed).values())


def numbers(position: int, column: object) -> tuple[object, ...]:
    """Return the tree with one column of numbers changed."""
    columns: list[object] = [b"\x00", b"\x00", b"\x00", b"\x07"]
    columns[position] = column
    return tree(numbers=tuple(columns))


def empty(**changed: object) -> tuple[object, ...]:
    """Return the tree of a map without writes, with some parts changed."""
    nothing = tree(
        actors=(), base_ms=0, keys=(), numbers=(b"",) * 4, payloads=(), changes=(), counts=()
    )
    names = ("actors", "base_ms", "keys", "numbers", "payloads", "changes", "counts")
    return tuple((dict(zip(names, nothing, strict=True)) | changed).values())


def malformed() -> Iterator[object]:
    yield None
    yield tree()[:-1]
    for actors in ((), (ALICE, BOB), (ALICE, ALICE), (b"x",), ALICE):
        yield tree(actors=actors)
    for base_ms in (-1, 1 << 48, True, None):
        yield tree(base_ms=base_ms)
    for keys in (("k", "z"), (), (None,), (True,), "k"):
        yield tree(keys=keys)
    for twice in (("k", "k"), ("z", "k")):
        columns = (b"\x00\x00", b"\x00\x00", b"\x00\x00", b"\x07\x08")
        yield tree(keys=twice, numbers=columns, payloads=(ONE, ONE), changes=(1, 1))
    yield tree(numbers=(b"\x00",) * 3)
    yield numbers(0, b"\x01")
    yield numbers(1, b"\x05")
    yield numbers(2, b"\x00\x00\x01\x00")
    yield numbers(3, b"\xff" * 8)
    yield numbers(3, b"\x07\x01\x00\x00")
    yield numbers(3, b"\x07\x00\x00\x01" + b"\x00" * 4)
    two = {"keys": ("a", "b"), "payloads": (ONE, ONE), "changes": (1, 1)}
    late = (b"\x00\x00", b"\x00\x01", b"\x00\x00", b"\x00\x00")
    yield tree(**two, numbers=late, base_ms=(1 << 48) - 1)
    yield tree(**two, numbers=(b"\x00\x00", b"\x01\x02", b"\x00\x00", b"\x00\x00"))
    yield tree(**two, numbers=(b"\x00\x01", b"\x00\x01", b"\x00\x00", b"\x00\x00"))
    yield tree(**(two | {"changes": (1, True)}), numbers=late)
    for position in range(4):
        for column in (0, "\x00", b"", b"\x00" * 2, b"\x00" * 3, b"\x00" * 9):
            yield numbers(position, column)
    for payload in (1, b"", b"\xd9\x01a", b"\xc7\x00\x05", [ONE]):
        yield tree(payloads=(payload,))
    yield tree(payloads=())
    for changes in (0, True, -1, (ALICE[:8], 1), (b"short", 1), (ALICE[:8],), (BOB[:8], 0)):
        yield tree(changes=(changes,))
    yield tree(changes=())
    yield empty(base_ms=1)
    yield empty(actors=(ALICE,))
    counted = ("k", (ALICE[:8], 1))
    for counts in (("k", ()), ("k", 1), ("k", (ALICE[:8], 0)), ("k",), (1.5, (ALICE[:8], 1))):
        yield empty(counts=(counts,))
    yield empty(counts=(counted, counted))
    yield tree(counts=(counted,))


def test_the_well_formed_map_is_read() -> None:
    """What the malformed ones are derived from is good."""
    state = Map.from_wire(tree())
    assert 1 == state["k"]
    assert tree() == state.to_wire()
    assert 1 == Map.from_wire(empty(counts=(("k", (ALICE[:8], 1)),))).version("k")
    assert Map() == Map.from_wire(empty())


@pytest.mark.parametrize("sequence", [0, 1, 0xFF, 0x100, 0x1_0000, 0x100_0000, 1 << 32, 1 << 62])
def test_a_number_is_read_at_every_width(sequence: int) -> None:
    """A column is as wide as its largest number needs, wherever that number has its bits."""
    state = Map().set("k", 1, stamp=stamp(1), sequence=sequence)
    state.absorb(Map().set("l", 1, stamp=stamp(1), sequence=5))
    again = Map.from_wire(state.to_wire())
    again._check()
    assert state == again


@pytest.mark.parametrize("writers", [(ALICE,), (ALICE, BOB)])
@pytest.mark.parametrize("rounds", [(1, 1), (2, 2), (1, 3)])
def test_changes_are_read_whoever_made_how_many(
    writers: tuple[ActorId, ...], rounds: tuple[int, int]
) -> None:
    """Keys changed as often or not, by one writer or several, come back as they were."""
    state = Map()
    for number in range(8):
        for time in range(rounds[number % 2]):
            at = stamp(10 * number + time + 1, writers[number // 2 % len(writers)])
            state.absorb(state.set(f"key{number}", number, stamp=at))
    again = Map.from_wire(state.to_wire())
    again._check()
    assert state == again
    assert rounds == (again.version("key0"), again.version("key1"))


def test_an_entry_is_the_same_object_until_it_changes() -> None:
    """Also after a map was read from bytes: what was made of an entry can be kept beside it."""
    state = Map.from_wire(written(("k", 1, stamp(1))).to_wire())
    entry = state.entry("k")
    assert type(entry) is LWWEntry
    assert entry is state.entry("k")
    assert [("k", entry)] == list(state.entries())
    state.absorb(state.set("k", 2, stamp=stamp(2)))
    assert entry != state.entry("k")


@pytest.mark.parametrize("wire", list(malformed()))
def test_a_malformed_map_is_refused(wire: object) -> None:
    """Only what `to_wire` makes is read."""
    with pytest.raises(DecodeError):
        Map.from_wire(wire)


writes = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from([None, 1, "x"]),
        st.sampled_from([ALICE, BOB]),
        st.booleans(),
    ),
    max_size=12,
)


def replay(program: list[tuple[str, object, ActorId, bool]]) -> list[Map]:
    """Run writes at two replicas that exchange now and then; return all deltas and states."""
    replicas = {ALICE: Map(), BOB: Map()}
    deltas: list[Map] = []
    for number, (key, value, actor, is_exchange) in enumerate(program, 1):
        state = replicas[actor]
        if value is None and key not in state:
            continue
        at = stamp(number, actor)
        delta = (
            state.remove(key, stamp=at, sequence=number)
            if value is None
            else state.set(key, value, stamp=at, sequence=number)
        )
        state.absorb(delta)
        deltas.append(delta)
        if is_exchange:
            for other in replicas.values():
                other.absorb(state)
    return [*deltas, *replicas.values(), Map()]


@given(writes, st.data())
def test_entries_obey_the_laws(
    program: list[tuple[str, object, ActorId, bool]], data: st.DataObject
) -> None:
    """Join, order, new parts, decomposition and wire form agree with each other."""
    states = st.sampled_from(replay(program))
    a, b, c = data.draw(states), data.draw(states), data.draw(states)
    assert (a | b) | c == a | (b | c)
    assert a | b == b | a
    assert a | a == a
    assert (a <= b) == (a | b == b)
    copy = a.copy()
    new = copy.absorb(b)
    assert a | b == copy
    missing = [part for part in b.decompose() if not part <= a]
    expected = Map()
    for part in missing:
        expected.absorb(part)
    assert expected == new
    again = Map.from_wire(a.to_wire())
    assert a == again
    for state in (copy, new, again, a | b):
        state._check()


def test_an_entry_tells_its_version() -> None:
    """The version is the sum of all writers' counts."""
    wall_ms, logical, _ = stamp(1)
    entry = LWWEntry(wall_ms, logical, ALICE, 1, None, ((ALICE[:8], 2), (BOB[:8], 3)))
    assert 5 == entry.version


def test_more_actors_than_a_narrow_column_can_name_are_refused() -> None:
    """256 rows of one byte each can name 256 of 257 actors: one is without a write."""
    actors = tuple(number.to_bytes(16, "big") for number in range(257))
    keys = tuple(f"k{number:03d}" for number in range(256))
    columns = (bytes(range(256)), bytes(256), bytes(256), b"\x01" * 256)
    payloads = (encode_value(1),) * 256
    with pytest.raises(DecodeError, match="an actor without a write"):
        LWWMap.from_wire((actors, 0, keys, columns, payloads, (1,) * 256, ()))
