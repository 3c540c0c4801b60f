"""Type tags and the encoding with type and version."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import pytest

from meshlib.codec import pack
from meshlib.crdt import GCounter, bottom, decode, encode, register, registry, resolve, type_tag
from meshlib.errors import (
    DecodeError,
    InvalidTypeError,
    InvalidValueError,
    LimitExceeded,
    RejectReason,
    VersionMismatch,
)
from meshlib.identity import actor_id

ALICE = actor_id("alice", 1)


class Renamed(GCounter):
    """A counter whose second format names its body; the first is that of `GCounter`."""

    format_version: ClassVar[int] = 2

    def to_wire(self) -> Any:
        return ("totals", super().to_wire())

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        return super().from_wire(wire[1])

    def to_version(self, version: int) -> Any:
        return super().to_wire()

    @classmethod
    def from_version(cls, version: int, wire: Any) -> Self:
        return super().from_wire(wire)


register("test_renamed", Renamed)


class Bare:
    """A class with nothing that a lattice has but what every object has."""


class HalfMade(GCounter):
    """A counter that can be written and not read, and is changed in place without a copy."""

    from_wire = None  # type: ignore[assignment]

    def absorb(self, delta: Self) -> Self:
        return delta


class ReadByAnObject(GCounter):
    """A counter whose reader is a method of an object."""

    def from_wire(self, wire: Any) -> Self:  # type: ignore[override]
        return self


class Later(GCounter):
    """A counter in a second format that forgets the first."""

    format_version: ClassVar[int] = 2


class NeedsMore(GCounter):
    """A counter that cannot be made from nothing."""

    def __init__(self, start: int) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (
            Bare,
            "lacks __or__, __le__, is_bottom, decompose, digest, to_wire, from_wire$",
        ),
        (HalfMade, "lacks from_wire, copy$"),
        (ReadByAnObject, "lacks from_wire as a classmethod$"),
        (Later, "lacks to_version, from_version$"),
        (NeedsMore, r"lacks a bottom, for NeedsMore\(\) raises: .*start"),
    ],
)
def test_a_class_that_would_fail_at_its_first_write_is_refused(cls: type[Any], words: str) -> None:
    """At once, with what it lacks, and its tag stays free."""
    with pytest.raises(InvalidTypeError, match=f"{cls.__name__} is no lattice: it {words}"):
        register("test_refused", cls)

    with pytest.raises(DecodeError, match="no type known here"):
        resolve("test_refused")


@pytest.mark.parametrize("name", ["digest", "to_wire", "from_wire", "decompose", "is_bottom"])
def test_each_method_of_a_lattice_is_asked_for_by_its_name(name: str) -> None:
    """A class that has all others is refused for the one."""
    methods = {key: value for key, value in vars(GCounter).items() if key != name}
    methods = {key: value for key, value in methods.items() if key not in GCounter.__slots__}
    lacking = type("Lacking", (), {**methods, "__init__": lambda self: None, "__slots__": ()})

    with pytest.raises(InvalidTypeError, match=f"lacks {name}$"):
        register("test_refused", lacking)


def test_a_state_comes_back_with_its_type() -> None:
    """The encoding names the type and the version."""
    state = GCounter().increment(3, by=ALICE)
    data = encode(state)
    assert pack(("g_counter", 1, ((ALICE, 3),))) == data
    assert state == decode(data)
    assert GCounter() == bottom("g_counter")
    assert "g_counter" == type_tag(state) == type_tag(GCounter)


def test_a_state_is_written_for_a_peer_one_version_behind() -> None:
    """The older format is written on request, and read by both."""
    state = Renamed().increment(3, by=ALICE)
    old = encode(state, version=1)
    assert pack(("test_renamed", 1, ((ALICE, 3),))) == old
    assert old != encode(state) == encode(state, version=2)
    assert state == decode(old) == decode(encode(state))


@pytest.mark.parametrize("version", [0, 2, 3])
def test_a_version_that_a_type_never_had_is_refused(version: int) -> None:
    """Only versions up to the current one can be written."""
    with pytest.raises(InvalidValueError):
        encode(GCounter(), version=version)


def test_a_newer_version_of_a_peer_is_refused() -> None:
    """What a newer node sends in its own format is told apart from garbage."""
    with pytest.raises(VersionMismatch) as caught:
        decode(pack(("g_counter", 2, ())))
    assert (1, 2) == (caught.value.ours, caught.value.theirs)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        pack(5),
        pack(("g_counter", 1)),
        pack((7, 1, ())),
        pack(("g_counter", 0, ())),
        pack(("g_counter", True, ())),
        pack(("g_counter", 1, ())) + b"\x00",
    ],
)
def test_malformed_bytes_are_refused(data: bytes) -> None:
    """Nothing but an encoded state is read."""
    with pytest.raises(DecodeError):
        decode(data)


@pytest.mark.parametrize(
    "tag", ["nothing", "nothing(g_counter)", "g_counter()", "a(b", "a)b(", "window_counter())"]
)
def test_an_unknown_type_is_refused_as_such(tag: str) -> None:
    """The reason tells a type that is not known here from malformed bytes."""
    with pytest.raises(DecodeError) as caught:
        decode(pack((tag, 1, ())))
    assert RejectReason.TYPE == caught.value.reason


def test_a_class_that_is_not_registered_has_no_tag() -> None:
    """An object of any other class cannot be encoded."""
    with pytest.raises(InvalidTypeError):
        encode(object())  # type: ignore[arg-type]


def test_a_tag_names_one_class() -> None:
    """Registering the same class again changes nothing; another one is refused."""
    register("g_counter", GCounter)
    with pytest.raises(InvalidValueError):
        register("g_counter", Renamed)
    with pytest.raises(InvalidValueError):
        register("no tag", Renamed)
    assert resolve("g_counter") is GCounter


def test_a_peer_cannot_make_types_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Types made from families are bounded, and so is the length of a tag."""
    monkeypatch.setattr(registry, "PARAMETRIC_TYPES_MAX", 0)
    with pytest.raises(LimitExceeded):
        bottom("window_counter(61)")
    with pytest.raises(LimitExceeded):
        bottom("x(" * 200)
