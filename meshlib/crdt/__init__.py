"""Conflict-free replicated data types, as join-semilattices with deltas."""

from meshlib.crdt.causal import CausalContext, Dot
from meshlib.crdt.counters import GCounter, PNCounter
from meshlib.crdt.lattice import (
    Causal,
    Container,
    Lattice,
    Numbered,
    Paged,
    Stamped,
    absorb,
    difference,
    join_all,
)
from meshlib.crdt.maps import LWWEntry, LWWMap
from meshlib.crdt.registers import LWWRegister
from meshlib.crdt.registry import (
    FORMAT_VERSION,
    Versioned,
    bottom,
    decode,
    encode,
    register,
    register_family,
    resolve,
    type_tag,
)
from meshlib.crdt.sets import ORSet
from meshlib.crdt.window import WindowCounter

__all__ = [
    "FORMAT_VERSION",
    "Causal",
    "CausalContext",
    "Container",
    "Dot",
    "GCounter",
    "LWWEntry",
    "LWWMap",
    "LWWRegister",
    "Lattice",
    "Numbered",
    "ORSet",
    "PNCounter",
    "Paged",
    "Stamped",
    "Versioned",
    "WindowCounter",
    "absorb",
    "bottom",
    "decode",
    "difference",
    "encode",
    "join_all",
    "register",
    "register_family",
    "resolve",
    "type_tag",
]
