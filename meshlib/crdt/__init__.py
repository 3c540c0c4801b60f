"""Conflict-free replicated data types, as join-semilattices with deltas.

lattice.py      what every type is
known.py        what a state can leave out of its deltas because others have it
registry.py     which type a document is of, and the one encoding of a state
wire.py         the digest of a wire tree, and checks of what a caller gives a type
counters.py     GCounter, PNCounter
bounded.py      BoundedCounter
window.py       WindowCounter
registers.py    LWWRegister, MVRegister
ordered.py      MaxRegister, MinRegister
simple_sets.py  GSet, TwoPhaseSet
causal/         types that see what a write had seen: ORSet, RemoveWinsSet, ORMap, flags
lww/            LWWMap, of which the stores are made
prefix_cache/   PrefixCacheState: who has which prompt prefix cached
composed/       Pair, Lexicographic, and records by `@lattice`
"""

from meshlib.crdt.bounded import BoundedCounter
from meshlib.crdt.causal.context import CausalContext, Dot
from meshlib.crdt.causal.embedded import Embedded
from meshlib.crdt.causal.flags import DisableWinsFlag, EnableWinsFlag
from meshlib.crdt.causal.or_map import ORMap
from meshlib.crdt.causal.or_set import ORSet
from meshlib.crdt.causal.remove_wins import RemoveWinsSet
from meshlib.crdt.composed.pairs import Lexicographic, Pair
from meshlib.crdt.composed.product import components_of
from meshlib.crdt.composed.record import Record, lattice
from meshlib.crdt.counters import GCounter, PNCounter
from meshlib.crdt.known import KnownText, known_texts, text_named
from meshlib.crdt.lattice import (
    NOBODY,
    Causal,
    Container,
    Lattice,
    Numbered,
    Paged,
    Restampable,
    Stamped,
    absorb,
    difference,
    join_all,
)
from meshlib.crdt.lww.entries import NO_WRITE
from meshlib.crdt.lww.lww_map import LWWEntry, LWWMap
from meshlib.crdt.prefix_cache.epochs import (
    open_epoch,
    shut_epoch,
    shut_through,
    stamp_of_epoch,
)
from meshlib.crdt.prefix_cache.states import HashedPrefixCacheState, PrefixCacheState
from meshlib.crdt.prefix_cache.store import Generation
from meshlib.crdt.registers import LWWRegister, MaxRegister, MinRegister, MVRegister
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
from meshlib.crdt.simple_sets import GSet, TwoPhaseSet
from meshlib.crdt.window import WindowCounter

__all__ = [
    "FORMAT_VERSION",
    "NOBODY",
    "NO_WRITE",
    "BoundedCounter",
    "Causal",
    "CausalContext",
    "Container",
    "DisableWinsFlag",
    "Dot",
    "Embedded",
    "EnableWinsFlag",
    "GCounter",
    "GSet",
    "Generation",
    "HashedPrefixCacheState",
    "KnownText",
    "LWWEntry",
    "LWWMap",
    "LWWRegister",
    "Lattice",
    "Lexicographic",
    "MVRegister",
    "MaxRegister",
    "MinRegister",
    "Numbered",
    "ORMap",
    "ORSet",
    "PNCounter",
    "Paged",
    "Pair",
    "PrefixCacheState",
    "Record",
    "RemoveWinsSet",
    "Restampable",
    "Stamped",
    "TwoPhaseSet",
    "Versioned",
    "WindowCounter",
    "absorb",
    "bottom",
    "components_of",
    "decode",
    "difference",
    "encode",
    "join_all",
    "known_texts",
    "lattice",
    "open_epoch",
    "register",
    "register_family",
    "resolve",
    "shut_epoch",
    "shut_through",
    "stamp_of_epoch",
    "text_named",
    "type_tag",
]
