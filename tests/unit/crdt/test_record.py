"""Classes whose fields are lattices."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

import attrs
import pytest

from meshlib.clock import Stamp
from meshlib.codec import pack
from meshlib.crdt import (
    Container,
    Dot,
    GCounter,
    GSet,
    LWWMap,
    LWWRegister,
    MaxRegister,
    ORMap,
    ORSet,
    Pair,
    Record,
    decode,
    encode,
    lattice,
    type_tag,
)
from meshlib.errors import DecodeError, InvalidTypeError, InvalidValueError, VersionMismatch
from meshlib.identity import actor_id

ALICE = actor_id("alice", 1)


@lattice(name="test-worker")
class WorkerRecord:
    """A plain class with annotations."""

    health: LWWRegister[bool]
    load: MaxRegister[float]
    tags: ORSet[str]


@lattice(name="test-composed")
@attrs.define(kw_only=True)
class Composed(Record):
    """An attrs class that a type checker knows to be a lattice."""

    seen: GSet[str] = attrs.field(factory=GSet)
    places: ORMap[str, ORSet[str]]
    both: Pair[GCounter, MaxRegister[int]]
    worker: WorkerRecord


@lattice(name="test-frozen")
@attrs.frozen
class Frozen:
    """A frozen attrs class becomes a container all the same."""

    count: GCounter
    entries: LWWMap[str, int]


# A delta names some fields only, which a type checker takes for a mistake.
worker: Callable[..., WorkerRecord] = WorkerRecord
composed: Callable[..., Composed] = Composed
frozen: Callable[..., Frozen] = Frozen


def filled() -> Any:
    return worker(
        health=LWWRegister[bool]().set(True, stamp=Stamp(3, 0, ALICE)),
        load=MaxRegister[float]().set(0.5),
        tags=ORSet[str]().add("gpu", dot=Dot(ALICE, 1)),
    )


def test_a_record_joins_field_by_field() -> None:
    """A delta is a record with some fields; the others are left alone."""
    state: Any = worker()
    assert isinstance(filled(), Container)
    state.absorb(filled())
    new = state.absorb(worker(load=state.load.set(0.75), tags=filled().tags))
    assert worker(load=MaxRegister[float]().set(0.75)) == new
    assert {"health": True, "load": 0.75, "tags": {"gpu"}} == state.value
    assert filled() <= state
    assert not state <= filled()


def test_a_record_is_encoded_under_its_name() -> None:
    """Fields are sorted, and empty ones left out."""
    assert "record:test-worker" == type_tag(WorkerRecord)
    delta: Any = worker(load=MaxRegister[float]().set(0.5))
    assert pack(("record:test-worker", 1, (("load", 0.5),))) == encode(delta)
    assert filled() == decode(encode(filled()))
    assert filled().digest() == decode(encode(filled())).digest()


def test_records_compose() -> None:
    """Fields may be maps, pairs and records; their classes follow from the annotations."""
    state = composed()
    assert isinstance(state.places, ORMap.of(ORSet))
    assert isinstance(state.both, Pair.of(GCounter, MaxRegister))
    state.absorb(composed(worker=filled()))
    state.absorb(composed(places=state.places.update("k", lambda v: v.add("x", dot=Dot(ALICE, 1)))))
    assert state == decode(encode(state))
    assert {"k": {"x"}} == state.value["places"]
    assert Stamp(3, 0, ALICE) == state.latest_stamp()


def test_a_frozen_class_is_a_container_too() -> None:
    """Its objects change in place by `absorb` only, and are not hashable."""
    state: Any = frozen()
    state.absorb(frozen(count=GCounter().increment(by=ALICE)))
    assert 1 == state.count.value
    with pytest.raises(TypeError):
        hash(state)


def test_the_parts_of_all_buckets_are_the_record() -> None:
    """Paged fields page, the others come with bucket 0."""
    state: Any = frozen(count=GCounter().increment(by=ALICE))
    for number in range(20):
        delta = state.entries.set(f"k{number}", number, stamp=Stamp(number + 1, 0, ALICE))
        state.absorb(frozen(entries=delta))
    joined: Any = frozen()
    for bucket in range(256):
        joined.absorb(state.part([bucket]))
    assert state == joined
    assert state.bucket_digests() == joined.bucket_digests()
    other = state.copy()
    other.absorb(frozen(count=state.count.increment(by=ALICE)))
    pairs = zip(state.bucket_digests(), other.bucket_digests(), strict=True)
    assert [0] == [bucket for bucket, (a, b) in enumerate(pairs) if a != b]


def test_a_part_is_independent() -> None:
    """Changing the part of a record that was asked for does not change the record."""
    state = filled()
    part = state.part([0])
    part.absorb(worker(tags=part.tags.remove("gpu")))
    assert {"gpu"} == state.tags.value


def test_a_copy_is_independent() -> None:
    """Neither follows the other, through containers inside too."""
    state = filled()
    copy = state.copy()
    copy.absorb(worker(tags=copy.tags.remove("gpu")))
    assert {"gpu"} == state.tags.value
    copy._check()


def test_a_state_of_another_class_is_no_field() -> None:
    """The class of each field is checked when a record is made."""
    with pytest.raises(InvalidTypeError):
        worker(load=GCounter())
    with pytest.raises(TypeError):
        worker(unknown=GCounter())
    with pytest.raises(InvalidTypeError):
        filled().absorb(frozen())


@pytest.mark.parametrize(
    "wire",
    [
        3,
        (("load",),),
        (("nothing", ()),),
        (("load", None),),
        (("tags", ()),),
        ((3, 0.5),),
        (("load", 0.5), ("load", 0.5)),
        (("tags", ((ALICE, (1,), (1,), ("x",)),)), ("load", 0.5)),
    ],
)
def test_a_malformed_record_is_refused(wire: object) -> None:
    """Only what `to_wire` makes is read."""
    with pytest.raises(DecodeError):
        WorkerRecord.from_wire(wire)  # type: ignore[attr-defined]


def test_bad_declarations_are_refused() -> None:
    """Fields are lattices, and names fit."""

    class NoLattice:
        field: int

    class Empty:
        pass

    class Taken:
        digest: GCounter

    class Hidden:
        _field: GCounter

    class Unbound:
        field: ORMap  # type: ignore[type-arg]

    class Good:
        field: GCounter

    for wrong in (NoLattice, Empty, Taken, Hidden, Unbound):
        with pytest.raises(InvalidTypeError):
            lattice(name="test-wrong")(wrong)()
    for name in ("", "1x", "x" * 65, "a(b"):
        with pytest.raises(InvalidValueError):
            lattice(name=name)(Good)
    with pytest.raises(InvalidValueError):
        lattice(name="test-worker")(Good)
    with pytest.raises(InvalidValueError):
        lattice(name="test-x", version=0)(Good)
    with pytest.raises(InvalidValueError):
        lattice(name="test-x", since={"field": 2})(Good)


@lattice(name="test-versioned", version=2, since={"added": 2})
class Versioned:
    kept: GCounter
    added: GCounter


def test_a_default_is_empty_and_each_records_own() -> None:
    """One container for all of them would put what one was told into every other one."""

    @lattice(name="test-defaults")
    class Defaults(Record):
        tags: ORSet[str] = ORSet()
        count: GCounter = GCounter()

    one = Defaults()
    one.absorb(Defaults(tags=one.tags.add("x", dot=Dot(ALICE, 1))))

    assert {"x"} == one.tags.value
    assert Defaults().is_bottom()
    assert Defaults(count=GCounter()).is_bottom()
    assert Defaults().tags is not Defaults().tags


def test_a_default_that_holds_something_is_refused() -> None:
    """A record without arguments is the least of all."""
    defaults: tuple[Any, ...] = (GCounter().increment(by=ALICE), 3)
    for number, default in enumerate(defaults):
        with pytest.raises(InvalidValueError, match="a default must be an empty state"):

            @lattice(name=f"test-full-{number}")
            class Full(Record):
                count: GCounter = default

        with pytest.raises(InvalidValueError, match="a default must be an empty state"):

            @lattice(name=f"test-full-factory-{number}")
            class FullByFactory(Record):
                count: GCounter = attrs.field(factory=partial(copy, default))


def test_a_record_is_written_for_a_peer_one_version_behind() -> None:
    """The field that was added since is left out, and read as empty."""
    one = GCounter().increment(by=ALICE)
    state: Any = Versioned(kept=one, added=one)
    old: Any = decode(encode(state, version=1))
    assert (1, 0) == (old.kept.value, old.added.value)
    assert state == decode(encode(state))
    with pytest.raises(DecodeError):
        decode(pack(("record:test-versioned", 1, (("added", ((ALICE, 1),)),))))
    with pytest.raises(VersionMismatch):
        decode(pack(("record:test-versioned", 3, ())))


def test_the_example_in_the_docstring_runs() -> None:
    """As a reader would type it in."""
    (example,) = doctest.DocTestFinder(recurse=False).find(
        lattice, "lattice", globs={"__name__": __name__}
    )
    result = doctest.DocTestRunner().run(example)

    assert result.failed == 0
    assert result.attempted > 5
