"""Which region an address is of, and what cannot be told of regions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from meshlib.aio import Regions
from meshlib.errors import ConfigError, InvalidTypeError, MeshError

TOLD = Regions(
    {
        "us": ["10.0.0.0/8", "*.example", "[fd00:2::7]", "127.0.0.1"],
        "eu": ["10.1.0.0/16", "*.eu.example", "fd00:1::/48", "router-1.example", "127.0.0.1:7001"],
    },
    bridges=["10.1.0.1:7000", "a.us.example:7000"],
)


@pytest.mark.parametrize(
    ("address", "region"),
    [
        ("10.1.2.3:7000", "eu"),
        ("10.2.0.1:7000", "us"),
        ("11.0.0.1:7000", None),
        ("n1.eu.example:7000", "eu"),
        ("N1.EU.Example.:7000", "eu"),
        ("deep.below.eu.example:1", "eu"),
        ("eu.example:7000", "us"),
        ("neu.example:7000", "us"),
        ("example:7000", None),
        ("router-1.example:9", "eu"),
        ("[fd00:1::5]:7000", "eu"),
        ("[fd00:1::5%eth0]:7000", "eu"),
        ("[fd00:2::7]:7000", "us"),
        ("[fd00:2::8]:7000", None),
        ("127.0.0.1:7001", "eu"),
        ("127.0.0.1:7002", "us"),
        ("n.\u00fc.eu.example:7000", None),
        ("n" * 600 + ".eu.example:7000", None),
        ("", None),
        ("no address", None),
    ],
)
def test_the_closest_pattern_names_the_region(address: str, region: str | None) -> None:
    """An address before a host, a host before a network, and of two networks the smaller."""
    assert region == TOLD.region_of(address)


def test_bridges_are_of_the_region_of_their_address() -> None:
    """Nothing else says so."""
    assert (("10.1.0.1:7000",), ("a.us.example:7000",)) == (
        TOLD.bridges_of("eu"),
        TOLD.bridges_of("us"),
    )
    assert () == TOLD.bridges_of("absent")


def test_what_was_asked_for_is_not_kept_for_ever() -> None:
    """Peers choose the addresses."""
    told = Regions({"one": ["*.example"]})
    for number in range(10_000):
        told.region_of(f"n{number}.example:1")

    assert len(told._kept) <= 4096


@pytest.mark.parametrize(
    ("patterns", "bridges", "named"),
    [
        ({}, [], "1 to 64 regions"),
        ({f"r{i}": [f"h{i}"] for i in range(65)}, [], "1 to 64 regions"),
        ({"": ["*.a"]}, [], "a region"),
        ({"a": []}, [], "has no address"),
        ({"a": ["10.0.0.1/8"]}, [], "no network"),
        ({"a": ["10.0.0.0/64"]}, [], "no network"),
        ({"a": ["*.10.*"]}, [], "no pattern"),
        ({"a": ["a host"]}, [], "no pattern"),
        ({"a": [""]}, [], "no pattern"),
        ({"a": ["*.x"], "b": ["*.X"]}, [], "given twice"),
        ({"a": ["10.0.0.0/8", "10.0.0.0/255.0.0.0"]}, [], "given twice"),
        ({"a": [f"h{i}" for i in range(1025)]}, [], "1,024"),
        ({"a": ["*.a"]}, ["x.b:1"], "of no region"),
        ({"a": ["*.a"]}, ["x.a"], "no address"),
        ({"a": ["*.a"]}, ["x.a:0"], "port"),
        ({"a": ["*.a"]}, ["x.a:1", "x.a:1"], "given twice"),
        ({"a": ["*.a"], "b": ["*.b"]}, ["x.a:1"], "'b' has no bridge"),
        ({"a": ["*.a"]}, [f"x{i}.a:1" for i in range(257)], "256 bridges"),
    ],
)
def test_regions_that_cannot_be_are_refused(
    patterns: Mapping[str, Collection[str]], bridges: Collection[str], named: str
) -> None:
    """With a word for what is wrong."""
    with pytest.raises(ConfigError, match=named):
        Regions(patterns, bridges=bridges)


@pytest.mark.parametrize(
    ("patterns", "bridges"),
    [(["a"], []), ({"a": "*.a"}, []), ({"a": [1]}, []), ({"a": ["*.a"]}, "x.a:1")],
)
def test_arguments_of_another_type_are_refused(patterns: Any, bridges: Any) -> None:
    """One text is not several."""
    with pytest.raises(InvalidTypeError):
        Regions(patterns, bridges=bridges)


def test_a_refusal_is_an_error_of_this_package() -> None:
    """So that a server can tell it."""
    assert issubclass(ConfigError, MeshError)
