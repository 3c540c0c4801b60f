"""What `import meshlib` offers: about fifty names, each with one home, and none missing."""

from __future__ import annotations

import inspect
import sys
import typing

import attrs

import meshlib
from meshlib.aio import SeedReport


def test_each_public_name_is_one_thing_with_one_home() -> None:
    """No two names are one object, and each is what its room's door exports."""
    homes = {name: getattr(meshlib, name) for name in meshlib.__all__ if name != "__version__"}

    assert len({id(value) for value in homes.values()}) == len(homes)
    assert set(homes) == set(meshlib._HOMES)
    for name, room in meshlib._HOMES.items():
        door = sys.modules[room]
        assert name in door.__all__
        assert getattr(door, name) is homes[name]


def test_the_top_is_short_enough_to_be_read() -> None:
    """About fifty names: what most users of the front write; the rest has its room."""
    assert 50 <= len(meshlib.__all__) <= 55


def named_types(annotation: object) -> set[type]:
    """Return this package's classes in an annotation."""
    arguments = typing.get_args(annotation)
    if isinstance(annotation, type) and not arguments:
        return {annotation} if annotation.__module__.startswith("meshlib") else set()
    flat = [each for one in arguments for each in (one if isinstance(one, list) else [one])]
    origin = typing.get_origin(annotation)
    return set().union(*(named_types(each) for each in (*flat, *([origin] if origin else []))))


BEHIND_THE_FRONT = {
    "DocumentChanges", "DriverCounters", "HealthStatus", "KeyUse", "LimitSettings", "LimitUsage",
    "LinkFailure", "LocalReplica", "PartitionView", "Reservation", "SeedReport", "SlotTicket",
}  # fmt: skip
"""What is reached through what is named at the top, and is seldom written down."""


def test_what_the_front_takes_and_gives_has_a_name_at_the_top() -> None:
    """Nobody needs to know a room to annotate a variable."""
    needed: set[type] = set()
    named = [
        getattr(meshlib, name)
        for name in ("MeshRuntime", "Document", "MeshConfig", "Health", "Diagnosis")
    ]
    for cls in (*named, SeedReport):
        members = [m for n, m in inspect.getmembers(cls) if not n.startswith("_")]
        functions = [m.fget if isinstance(m, property) else m for m in (cls.__init__, *members)]
        for function in functions:
            if inspect.isfunction(function):
                for annotation in typing.get_type_hints(function).values():
                    needed |= named_types(annotation)
        if attrs.has(cls):
            for annotation in typing.get_type_hints(cls).values():
                needed |= named_types(annotation)
    names = {cls.__name__ for cls in needed}

    assert {"Decision", "RouteDecision", "EventStream", "GossipConfig", "MemberRecord"} <= names
    assert names - set(meshlib.__all__) == BEHIND_THE_FRONT


def test_the_help_is_a_table_of_contents() -> None:
    """Each public name stands in the first text that `help(meshlib)` shows."""
    assert meshlib.__doc__ is not None
    words = set(meshlib.__doc__.replace(",", " ").replace(":", " ").replace(";", " ").split())

    assert set(meshlib.__all__) - words == set()
    assert sorted({*dir(meshlib)} & {*meshlib.__all__}) == sorted(meshlib.__all__)


def test_the_version_is_the_packages() -> None:
    """As its metadata has it."""
    from importlib.metadata import version

    assert version("meshlib-crdt") == meshlib.__version__
