"""The work of `crdt_contenders`, done by the other libraries.

The Rust libraries have no set: a map whose values are `True` stands in. "Each its own delta" means
that every change could be sent by itself: a transaction (pycrdt) or a commit (loro).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from typing import Any

from crdt_contenders import Contender, Meshlib, Prepared, names, shuffled

__all__ = ["CONTENDERS", "available"]


class Pycrdt(Contender):
    label = "pycrdt"
    distribution = "pycrdt"

    def _doc(self) -> tuple[Any, Any]:
        pycrdt = importlib.import_module("pycrdt")
        doc = pycrdt.Doc()
        return doc, doc.get("map", type=pycrdt.Map)

    def counter_increments(self) -> Prepared:
        """Increment one slot of a map: it has no counter, and concurrent ones would be lost."""
        doc, slots = self._doc()

        def work() -> Any:
            for number in range(1, self.element_count + 1):
                slots["alice"] = number
            return doc

        return work, lambda _: slots["alice"] == self.element_count

    def _fill(self, slots: Any, keys: list[str], value: Any) -> None:
        for key in keys:
            slots[key] = value

    def set_adds(self, value: Any = True) -> Prepared:
        elements = names(self.element_count)
        _, slots = self._doc()

        def work() -> Any:
            for element in elements:
                slots[element] = value
            return slots

        return work, lambda slots: len(slots) == self.element_count

    def set_adds_at_once(self) -> Prepared:
        elements = names(self.element_count)
        doc, slots = self._doc()

        def work() -> Any:
            with doc.transaction():
                for element in elements:
                    slots[element] = True
            return slots

        return work, lambda slots: len(slots) == self.element_count

    def map_sets(self) -> Prepared:
        return self.set_adds("value")

    def _two(self, value: Any) -> tuple[bytes, bytes]:
        shared, *rest = self.halves()
        base, slots = self._doc()
        self._fill(slots, shared, value)
        updates = []
        for keys in rest:
            doc, slots = self._doc()
            doc.apply_update(base.get_update())
            self._fill(slots, keys, value)
            updates.append(doc.get_update())
        return updates[0], updates[1]

    def set_join_from_bytes(self, value: Any = True) -> Prepared:
        first, second = self._two(value)
        doc, slots = self._doc()
        doc.apply_update(first)

        def work() -> Any:
            doc.apply_update(second)
            return slots

        return work, lambda slots: len(slots) == self.element_count * 3 // 2

    def map_join_from_bytes(self) -> Prepared:
        return self.set_join_from_bytes("value")

    def _deltas(self) -> list[bytes]:
        doc, slots = self._doc()
        deltas: list[bytes] = []
        subscription = doc.observe(lambda event: deltas.append(event.update))
        self._fill(slots, names(self.element_count), True)
        doc.unobserve(subscription)
        return deltas

    def _apply(self, deltas: list[bytes]) -> Prepared:
        doc, slots = self._doc()

        def work() -> Any:
            for delta in deltas:
                doc.apply_update(delta)
            return slots

        return work, lambda slots: len(slots) == self.element_count

    def deltas_in_order(self) -> Prepared:
        return self._apply(self._deltas())

    def deltas_shuffled(self) -> Prepared:
        return self._apply(shuffled(self._deltas()))

    def encoded(self) -> int:
        doc, slots = self._doc()
        self._fill(slots, names(self.element_count), True)
        return len(doc.get_update())

    def held(self) -> Callable[[list[str]], Any]:
        doc, slots = self._doc()

        def build(elements: list[str]) -> Any:
            self._fill(slots, elements, True)
            return doc

        return build


class Loro(Contender):
    label = "loro"
    distribution = "loro"

    def _doc(self) -> tuple[Any, Any]:
        doc = importlib.import_module("loro").LoroDoc()
        return doc, doc.get_map("map")

    def _fill(self, doc: Any, slots: Any, keys: list[str], value: Any) -> None:
        for key in keys:
            slots.insert(key, value)
            doc.commit()

    def _export(self, doc: Any) -> bytes:
        loro = importlib.import_module("loro")
        data: bytes = doc.export(loro.ExportMode.Updates(loro.VersionVector()))
        return data

    def counter_increments(self) -> Prepared:
        doc, _ = self._doc()
        counter = doc.get_counter("counter")

        def work() -> Any:
            for _ in range(self.element_count):
                counter.increment(1)
                doc.commit()
            return counter

        return work, lambda counter: counter.value == self.element_count

    def set_adds(self, value: Any = True) -> Prepared:
        elements = names(self.element_count)
        doc, slots = self._doc()

        def work() -> Any:
            self._fill(doc, slots, elements, value)
            return slots

        return work, lambda slots: len(slots) == self.element_count

    def set_adds_at_once(self) -> Prepared:
        elements = names(self.element_count)
        doc, slots = self._doc()

        def work() -> Any:
            for element in elements:
                slots.insert(element, True)
            doc.commit()
            return slots

        return work, lambda slots: len(slots) == self.element_count

    def map_sets(self) -> Prepared:
        return self.set_adds("value")

    def set_join_from_bytes(self, value: Any = True) -> Prepared:
        shared, *rest = self.halves()
        base, slots = self._doc()
        self._fill(base, slots, shared, value)
        updates = []
        for keys in rest:
            doc, slots = self._doc()
            doc.import_(self._export(base))
            self._fill(doc, slots, keys, value)
            updates.append(self._export(doc))
        target, joined = self._doc()
        target.import_(updates[0])

        def work() -> Any:
            target.import_(updates[1])
            return joined

        return work, lambda slots: len(slots) == self.element_count * 3 // 2

    def map_join_from_bytes(self) -> Prepared:
        return self.set_join_from_bytes("value")

    def _deltas(self) -> list[bytes]:
        doc, slots = self._doc()
        deltas: list[bytes] = []

        def keep(update: bytes) -> bool:
            deltas.append(update)
            return True

        subscription = doc.subscribe_local_update(keep)
        self._fill(doc, slots, names(self.element_count), True)
        del subscription
        return deltas

    def _apply(self, deltas: list[bytes]) -> Prepared:
        doc, slots = self._doc()

        def work() -> Any:
            for delta in deltas:
                doc.import_(delta)
            return slots

        return work, lambda slots: len(slots) == self.element_count

    def deltas_in_order(self) -> Prepared:
        return self._apply(self._deltas())

    def deltas_shuffled(self) -> Prepared:
        return self._apply(shuffled(self._deltas()))

    def encoded(self) -> int:
        doc, slots = self._doc()
        self._fill(doc, slots, names(self.element_count), True)
        return len(self._export(doc))

    def held(self) -> Callable[[list[str]], Any]:
        doc, slots = self._doc()

        def build(elements: list[str]) -> Any:
            self._fill(doc, slots, elements, True)
            return doc

        return build


class Crdts(Contender):
    """Its counter is one pair of numbers for all writers: concurrent increments are lost."""

    label = "crdts"
    distribution = "crdts"
    element_count = 2_000
    held_count = 20_000

    def counter_increments(self) -> Prepared:
        counter = importlib.import_module("crdts").PNCounter()

        def work() -> Any:
            for _ in range(self.element_count):
                counter.increase(1)
            return counter

        return work, lambda counter: counter.read() == self.element_count

    def _set(self) -> Any:
        return importlib.import_module("crdts").ORSet()

    def set_adds(self) -> Prepared:
        state, elements = self._set(), names(self.element_count)

        def work() -> Any:
            for element in elements:
                state.observe(element)
            return state

        return work, lambda state: len(state.read()) == self.element_count

    def map_sets(self) -> Prepared:
        state, keys = importlib.import_module("crdts").LWWMap(), names(self.element_count)

        def work() -> Any:
            for key in keys:
                state.set(key, "value", 1)
            return state

        return work, lambda state: len(state.read()) == self.element_count

    def _deltas(self, keys: list[str], clock: Any = None) -> tuple[Any, list[Any]]:
        module = importlib.import_module("crdts")
        state = module.ORSet() if clock is None else module.ORSet(clock=clock)
        return state, [state.observe(key) for key in keys]

    def set_join(self) -> Prepared:
        """Replay the other's history: it has no join of states."""
        module = importlib.import_module("crdts")
        shared, one, two = self.halves()
        target, deltas = self._deltas([*shared, *one])
        clock = module.ScalarClock(uuid=target.clock.uuid)
        other = module.ORSet(clock=clock)
        for delta in deltas[: len(shared)]:
            other.update(delta)
        for key in two:
            other.observe(key)

        def work() -> Any:
            for update in other.history():
                target.update(update)
            return target

        return work, lambda state: len(state.read()) == self.element_count * 3 // 2

    def encoded(self) -> int:
        state, _ = self._deltas(names(self.element_count))
        return len(state.pack())

    def held(self) -> Callable[[list[str]], Any]:
        state = self._set()

        def build(elements: list[str]) -> Any:
            for element in elements:
                state.observe(element)
            return state

        return build


class Python3Crdt(Contender):
    """It has no deltas and no encoding, and each addition sorts the whole set."""

    label = "python3-crdt"
    distribution = "python3-crdt"
    element_count = 500
    held_count = 4_000

    def counter_increments(self) -> Prepared:
        counter = importlib.import_module("py3crdt.gcounter").GCounter("alice")
        counter.add_new_node("alice")

        def work() -> Any:
            for _ in range(self.element_count):
                counter.inc("alice")
            return counter

        return work, lambda counter: counter.query() == self.element_count

    def _set(self, keys: list[str]) -> Any:
        state = importlib.import_module("py3crdt.orset").ORSet("alice")
        for number, key in enumerate(keys):
            state.add(key, f"{key}-{number}")
        return state

    def set_adds(self) -> Prepared:
        elements = names(self.element_count)
        return lambda: self._set(elements), lambda state: len(state.A) == self.element_count

    def set_join(self) -> Prepared:
        shared, one, two = self.halves()
        target, other = self._set([*shared, *one]), self._set([*shared, *two])

        def work() -> Any:
            target.merge(other)
            return target

        return work, lambda state: len(state.A) == self.element_count * 3 // 2

    def held(self) -> Callable[[list[str]], Any]:
        return self._set


CONTENDERS: tuple[type[Contender], ...] = (Meshlib, Pycrdt, Loro, Crdts, Python3Crdt)


def available() -> list[Contender]:
    """Return the contenders that are installed here."""
    found = []
    for kind in CONTENDERS:
        contender = kind()
        try:
            contender.version()
        except PackageNotFoundError:
            continue
        found.append(contender)
    return found
