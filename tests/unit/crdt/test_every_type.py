"""The laws, lightly, on every type: random programs at three replicas that exchange parts."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.clock import Stamp
from meshlib.crdt import (
    BoundedCounter,
    Container,
    DisableWinsFlag,
    Dot,
    Embedded,
    EnableWinsFlag,
    GCounter,
    GSet,
    Lattice,
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
    RemoveWinsSet,
    TwoPhaseSet,
    WindowCounter,
    absorb,
    decode,
    difference,
    encode,
    join_all,
    lattice,
)
from meshlib.identity import ActorId, actor_id


@attrs.frozen
class Turn:
    """What a program has at hand for one write."""

    rng: random.Random
    actor: ActorId
    stamp: Stamp
    dot: Callable[[], Dot]

    def element(self) -> str:
        return self.rng.choice("xyz")


@lattice(name="test-every-type")
class SomeRecord:
    health: LWWRegister[bool]
    load: MaxRegister[float]
    tags: ORSet[str]
    entries: LWWMap[str, int]


def write_counter(state: Any, turn: Turn) -> Any:
    return state.increment(turn.rng.randint(1, 3), by=turn.actor)


def write_pn(state: PNCounter, turn: Turn) -> PNCounter:
    return (state.increment if turn.rng.random() < 0.5 else state.decrement)(2, by=turn.actor)


def write_ordered(state: Any, turn: Turn) -> Any:
    return state.set(turn.rng.choice([-1, 0, 0.0, -0.0, 2, 2.0, b"a", "a", "b", (1, "a")]))


def write_lww(state: Any, turn: Turn) -> Any:
    return state.set(turn.rng.choice([1, "x", [1, 2]]), stamp=turn.stamp)


def write_mv(state: Any, turn: Turn) -> Any:
    if turn.rng.random() < 0.2:
        return state.clear()
    return state.set(turn.rng.choice([1, 2]), dot=turn.dot())


def write_enable_wins(state: EnableWinsFlag, turn: Turn) -> EnableWinsFlag:
    return state.enable(dot=turn.dot()) if turn.rng.random() < 0.5 else state.disable()


def write_disable_wins(state: DisableWinsFlag, turn: Turn) -> DisableWinsFlag:
    return (state.enable if turn.rng.random() < 0.5 else state.disable)(dot=turn.dot())


def write_g_set(state: GSet[str], turn: Turn) -> GSet[str]:
    return state.add(turn.element())


def write_two_phase(state: TwoPhaseSet[str], turn: Turn) -> TwoPhaseSet[str]:
    element = turn.element()
    if element in state:
        return state.remove(element)
    return state.discard(element) if any(state.to_wire()[1]) else state.add(element)


def write_or_set(state: ORSet[str], turn: Turn) -> ORSet[str]:
    dice = turn.rng.random()
    if dice < 0.6:
        return state.add(turn.element(), dot=turn.dot())
    return state.discard(turn.element()) if dice < 0.95 else state.clear()


def write_remove_wins(state: RemoveWinsSet[str], turn: Turn) -> RemoveWinsSet[str]:
    return (state.add if turn.rng.random() < 0.5 else state.discard)(turn.element(), dot=turn.dot())


def write_map(state: LWWMap[str, int], turn: Turn) -> LWWMap[str, int]:
    key = turn.element()
    if key in state and turn.rng.random() < 0.4:
        return state.remove(key, stamp=turn.stamp)
    return state.set(key, turn.rng.randint(0, 3), stamp=turn.stamp)


def write_window(state: WindowCounter, turn: Turn) -> WindowCounter:
    window = turn.rng.randint(0, 5)
    if turn.rng.random() < 0.3 and state.by_actor(window).get(turn.actor, 0):
        return state.refund(window=window, by=turn.actor)
    return state.record(turn.rng.randint(1, 3), window=window, by=turn.actor)


def write_bounded(state: BoundedCounter, turn: Turn) -> BoundedCounter:
    dice = turn.rng.random()
    if dice < 0.4 or not state.rights(turn.actor):
        return state.grant(3, by=turn.actor)
    if dice < 0.7:
        return state.spend(by=turn.actor)
    other = turn.rng.choice([a for a in ACTORS if a != turn.actor])
    return state.transfer(by=turn.actor, to=other)


def write_pair(state: Any, turn: Turn) -> Any:
    if turn.rng.random() < 0.5:
        return type(state)(write_counter(state.first, turn))
    return type(state)(second=write_or_set(state.second, turn))


def write_lexicographic(state: Any, turn: Turn) -> Any:
    if turn.rng.random() < 0.2:
        return type(state)(write_counter(state.first, turn))
    return type(state)(state.first, write_g_set(state.second, turn))


def write_embedded(state: Any, turn: Turn) -> Any:
    if turn.rng.random() < 0.2:
        return state.clear()
    return state.update(lambda value: write_pn(value, turn), dot=turn.dot())


def in_map(inner: Callable[[Any, Turn], Any], *, is_embedded: bool = False) -> Any:
    def write(state: Any, turn: Turn) -> Any:
        key = turn.rng.choice("jk")
        if key in state and turn.rng.random() < 0.2:
            return state.remove(key)
        dot = turn.dot() if is_embedded else None
        return state.update(key, lambda value: inner(value, turn), dot=dot)

    return write


def write_record(state: Any, turn: Turn) -> Any:
    some: Callable[..., SomeRecord] = SomeRecord  # a delta names some fields only
    dice = turn.rng.random()
    if dice < 0.25:
        return some(health=write_lww(state.health, turn))
    if dice < 0.5:
        return some(load=write_ordered(state.load, turn))
    if dice < 0.75:
        return some(tags=write_or_set(state.tags, turn))
    return some(entries=write_map(state.entries, turn))


ACTORS = [actor_id(name, 1) for name in ("alice", "bob", "carol")]
TYPES: dict[str, tuple[type[Any], Callable[[Any, Turn], Any]]] = {
    "g_counter": (GCounter, write_counter),
    "pn_counter": (PNCounter, write_pn),
    "max_register": (MaxRegister, write_ordered),
    "min_register": (MinRegister, write_ordered),
    "lww_register": (LWWRegister, write_lww),
    "mv_register": (MVRegister, write_mv),
    "enable_wins_flag": (EnableWinsFlag, write_enable_wins),
    "disable_wins_flag": (DisableWinsFlag, write_disable_wins),
    "g_set": (GSet, write_g_set),
    "two_phase_set": (TwoPhaseSet, write_two_phase),
    "or_set": (ORSet, write_or_set),
    "remove_wins_set": (RemoveWinsSet, write_remove_wins),
    "lww_map": (LWWMap, write_map),
    "window_counter": (WindowCounter.of(3), write_window),
    "bounded_counter": (BoundedCounter, write_bounded),
    "pair": (Pair.of(GCounter, ORSet), write_pair),
    "lexicographic": (Lexicographic.of(GCounter, GSet), write_lexicographic),
    "embedded": (Embedded.of(PNCounter), write_embedded),
    "map_of_sets": (ORMap.of(ORSet), in_map(write_or_set)),
    "map_of_remove_wins": (ORMap.of(RemoveWinsSet), in_map(write_remove_wins)),
    "map_of_flags": (ORMap.of(EnableWinsFlag), in_map(write_enable_wins)),
    "map_of_registers": (ORMap.of(MVRegister), in_map(write_mv)),
    "map_of_counters": (ORMap.of(PNCounter), in_map(write_pn, is_embedded=True)),
    "map_of_maps_of_sets": (ORMap.of(ORMap.of(ORSet)), in_map(in_map(write_or_set))),
    "record": (SomeRecord, write_record),
}


def joined(left: Any, right: Any) -> Any:
    """Join into a copy, in place where the type can."""
    return absorb(left.copy() if isinstance(left, Container) else left, right)[0]


def history(name: str, seed: int, *, writes: int = 9) -> list[Any]:
    """Run a random program; return all deltas, partial joins of them and the final states."""
    cls, write = TYPES[name]
    rng = random.Random(seed)
    replicas = {actor: cls() for actor in ACTORS}
    dots = dict.fromkeys(ACTORS, 0)
    deltas: list[Any] = []
    for number in range(1, writes + 1):
        actor = rng.choice(ACTORS)

        def next_dot(actor: ActorId = actor) -> Dot:
            dots[actor] += 1
            return Dot(actor, dots[actor])

        turn = Turn(rng, actor, Stamp(number, 0, actor), next_dot)
        delta = write(replicas[actor], turn)
        deltas.append(delta)
        replicas[actor] = joined(replicas[actor], delta)
        if rng.random() < 0.4:
            receiver = rng.choice(ACTORS)
            news = rng.choice([*deltas, *replicas.values()])
            replicas[receiver] = joined(replicas[receiver], news)
    partial = [joined(rng.choice(deltas), rng.choice(deltas)) for _ in range(4)]
    return [cls(), *deltas, *partial, *replicas.values()]


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_states_obey_the_laws(name: str, seed: int) -> None:
    """Join, order, new parts, decomposition, copies, bytes and digests agree."""
    states = history(name, seed)
    rng = random.Random(seed)
    for _ in range(6):
        a, b, c = (rng.choice(states) for _ in range(3))
        before = [encode(state) for state in (a, b, c)]
        assert isinstance(a, Lattice)
        assert (a | b) | c == a | (b | c)
        assert a | b == b | a
        assert a | a == a == a | type(a)()
        assert (a <= b) == (a | b == b)
        check_absorbing(a, b)
        check_decomposition(a)
        assert before == [encode(state) for state in (a, b, c)]
        assert (a == b) == (before[0] == before[1])
        again = decode(before[0])
        assert a == again
        assert a.digest() == again.digest()
        assert before[0] == encode(again)


def check_absorbing(state: Any, delta: Any) -> None:
    """The new part is the join of the irreducible parts that were missing."""
    copy = state.copy() if isinstance(state, Container) else state
    result, new = absorb(copy, delta)
    assert state | delta == result
    assert difference(delta, state) == new
    assert new.is_bottom() == (delta <= state)
    check = getattr(result, "_check", None)
    if check is not None:
        check()
        new._check()


def check_decomposition(state: Any) -> None:
    """The parts join to the state, and none of them can be left out."""
    parts = list(state.decompose())
    assert bool(parts) != state.is_bottom()
    if parts:
        assert state == join_all(parts)
    for position in range(len(parts)):
        rest = parts[:position] + parts[position + 1 :]
        assert not rest or join_all(rest) != state


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_any_order_and_repetition_of_deltas_converges(name: str, seed: int) -> None:
    """Replicas that saw the same deltas, however often and in whatever order, are equal."""
    cls = TYPES[name][0]
    deltas = history(name, seed)[1:10]
    rng = random.Random(seed)
    expected = cls()
    for delta in deltas:
        expected = joined(expected, delta)
    shuffled = deltas + rng.sample(deltas, 4)
    rng.shuffle(shuffled)
    state = cls()
    for delta in shuffled:
        state = joined(state, delta)
    assert expected == state
    assert encode(expected) == encode(state)
