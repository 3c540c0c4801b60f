"""The work that `bench_crdt.py` measures, and how meshlib does it.

Every workload is a function that sets up (not timed) and returns what is timed and a check of
its outcome. A library that has no such call leaves the workload out.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

from meshlib.clock import Stamp
from meshlib.crdt import Dot, LWWMap, ORSet, PNCounter, decode, encode
from meshlib.identity import actor_id

__all__ = ["Contender", "Meshlib", "Prepared", "names", "shuffled"]

Prepared = tuple[Callable[[], Any], Callable[[Any], bool]]
"""What is timed, and a check of what it returned."""

ALICE, BOB, CAROL = (actor_id(name, 1) for name in ("alice", "bob", "carol"))


def names(count: int, *, start: int = 0) -> list[str]:
    return [f"elem{number:06d}" for number in range(start, start + count)]


def shuffled(items: Iterable[Any]) -> list[Any]:
    listed = list(items)
    random.Random(1).shuffle(listed)
    return listed


class Contender:
    """A library; its methods named after a workload are what it can do."""

    label = ""
    distribution = ""
    element_count = 10_000
    held_count = 100_000

    def version(self) -> str:
        return version(self.distribution)

    def halves(self) -> tuple[list[str], list[str], list[str]]:
        """Return what two states share, and what only the one and only the other has."""
        half = self.element_count // 2
        return names(half), names(half, start=half), names(half, start=2 * half)


class Meshlib(Contender):
    """This package: each delta is a state, and each state can be joined with any other."""

    label = "meshlib"
    distribution = "meshlib-crdt"

    def counter_increments(self) -> Prepared:
        def work() -> PNCounter:
            counter = PNCounter()
            for _ in range(self.element_count):
                counter |= counter.increment(1, by=ALICE)
            return counter

        return work, lambda counter: counter.value == self.element_count

    def set_adds(self) -> Prepared:
        elements = names(self.element_count)
        dots = [Dot(ALICE, sequence) for sequence in range(1, self.element_count + 1)]

        def work() -> ORSet[str]:
            state: ORSet[str] = ORSet()
            for element, dot in zip(elements, dots, strict=True):
                state.absorb(state.add(element, dot=dot))
            return state

        return work, lambda state: len(state) == self.element_count

    def set_adds_at_once(self) -> Prepared:
        elements = names(self.element_count)

        def work() -> ORSet[str]:
            state: ORSet[str] = ORSet()
            state.absorb(state.add_all(elements, first=Dot(ALICE, 1)))
            return state

        return work, lambda state: len(state) == self.element_count

    def map_sets(self) -> Prepared:
        keys = names(self.element_count)
        stamps = [Stamp(number + 1, 0, ALICE) for number in range(self.element_count)]

        def work() -> LWWMap[str, str]:
            state: LWWMap[str, str] = LWWMap()
            for sequence, (key, stamp) in enumerate(zip(keys, stamps, strict=True), 1):
                state.absorb(state.set(key, "value", stamp=stamp, sequence=sequence))
            return state

        return work, lambda state: len(state) == self.element_count

    def _two_sets(self) -> tuple[bytes, bytes]:
        shared, one, two = self.halves()
        base = ORSet[str]().add_all(shared, first=Dot(ALICE, 1))
        first = base | base.add_all(one, first=Dot(BOB, 1))
        return encode(first), encode(base | base.add_all(two, first=Dot(CAROL, 1)))

    def _two_maps(self) -> tuple[bytes, bytes]:
        shared, one, two = self.halves()
        base: LWWMap[str, str] = LWWMap()
        stamps = (Stamp(number, 0, ALICE) for number in itertools.count(1))
        for key in shared:
            base.absorb(base.set(key, "value", stamp=next(stamps)))
        first, second = base.copy(), base.copy()
        for state, keys in ((first, one), (second, two)):
            for key in keys:
                state.absorb(state.set(key, "value", stamp=next(stamps)))
        return encode(first), encode(second)

    def _join(self, states: tuple[bytes, bytes], *, is_decoded: bool) -> Prepared:
        target: Any = decode(states[0])
        other: Any = decode(states[1])
        # What is decoded may put off work until it is first used: that is part of reading bytes.
        assert len(target) == len(other) == self.element_count

        def join_objects() -> Any:
            return target | other

        def join_bytes() -> Any:
            target.absorb(decode(states[1]))
            return target

        work = join_objects if is_decoded else join_bytes
        return work, lambda joined: len(joined) == self.element_count * 3 // 2

    def set_join(self) -> Prepared:
        return self._join(self._two_sets(), is_decoded=True)

    def set_join_from_bytes(self) -> Prepared:
        return self._join(self._two_sets(), is_decoded=False)

    def map_join(self) -> Prepared:
        return self._join(self._two_maps(), is_decoded=True)

    def map_join_from_bytes(self) -> Prepared:
        return self._join(self._two_maps(), is_decoded=False)

    def _deltas(self) -> list[bytes]:
        state: ORSet[str] = ORSet()
        deltas = []
        for sequence, element in enumerate(names(self.element_count), 1):
            delta = state.add(element, dot=Dot(ALICE, sequence))
            state.absorb(delta)
            deltas.append(encode(delta))
        return deltas

    def _apply(self, deltas: list[bytes]) -> Prepared:
        def work() -> ORSet[str]:
            state: ORSet[str] = ORSet()
            for delta in deltas:
                arrived: Any = decode(delta)
                state.absorb(arrived)
            return state

        return work, lambda state: len(state) == self.element_count

    def deltas_in_order(self) -> Prepared:
        return self._apply(self._deltas())

    def deltas_shuffled(self) -> Prepared:
        return self._apply(shuffled(self._deltas()))

    def encoded(self) -> int:
        return len(encode(self.set_adds()[0]()))

    def held(self) -> Callable[[list[str]], Any]:
        def build(elements: list[str]) -> Any:
            state: ORSet[str] = ORSet()
            for sequence, element in enumerate(elements, 1):
                state.absorb(state.add(element, dot=Dot(ALICE, sequence)))
            return state

        return build
