"""The spec of every type of `meshlib.crdt`: what each type is, in an oracle, and its laws.

counters.py, registers.py, flags.py, sets.py, maps.py, prefixes.py
the specs of these types
compositions.py  the specs of what is made of other types
common.py        what the specs share

They check the types here, and are examples for specs of other types. `SPECS` has them by the
tag of the type. Needs hypothesis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meshlib.testing.laws.spec import CRDTSpec
from meshlib.testing.specs.compositions import (
    LEXICOGRAPHIC,
    LEXICOGRAPHIC_COUNTED,
    PAIR,
    RECORD,
    WorkerRecord,
)
from meshlib.testing.specs.counters import (
    BOUNDED_COUNTER,
    G_COUNTER,
    PN_COUNTER,
    WINDOW_COUNTER,
)
from meshlib.testing.specs.flags import DISABLE_WINS_FLAG, ENABLE_WINS_FLAG
from meshlib.testing.specs.maps import (
    LWW_MAP,
    OR_MAP_OF_COUNTERS,
    OR_MAP_OF_MAPS,
    OR_MAP_OF_SETS,
)
from meshlib.testing.specs.prefixes import PREFIX_CACHE, PREFIX_CACHE_HASH
from meshlib.testing.specs.registers import LWW_REGISTER, MAX_REGISTER, MIN_REGISTER, MV_REGISTER
from meshlib.testing.specs.sets import G_SET, OR_SET, REMOVE_WINS_SET, TWO_PHASE_SET

__all__ = [
    "BOUNDED_COUNTER",
    "DISABLE_WINS_FLAG",
    "ENABLE_WINS_FLAG",
    "G_COUNTER",
    "G_SET",
    "LEXICOGRAPHIC",
    "LEXICOGRAPHIC_COUNTED",
    "LWW_MAP",
    "LWW_REGISTER",
    "MAX_REGISTER",
    "MIN_REGISTER",
    "MV_REGISTER",
    "OR_MAP_OF_COUNTERS",
    "OR_MAP_OF_MAPS",
    "OR_MAP_OF_SETS",
    "OR_SET",
    "PAIR",
    "PN_COUNTER",
    "PREFIX_CACHE",
    "PREFIX_CACHE_HASH",
    "RECORD",
    "REMOVE_WINS_SET",
    "SPECS",
    "TWO_PHASE_SET",
    "WINDOW_COUNTER",
    "WorkerRecord",
]

SPECS: Final[Mapping[str, CRDTSpec[Any]]] = {
    spec.name: spec
    for spec in (
        G_COUNTER,
        PN_COUNTER,
        WINDOW_COUNTER,
        BOUNDED_COUNTER,
        LWW_REGISTER,
        MV_REGISTER,
        MAX_REGISTER,
        MIN_REGISTER,
        ENABLE_WINS_FLAG,
        DISABLE_WINS_FLAG,
        G_SET,
        TWO_PHASE_SET,
        OR_SET,
        REMOVE_WINS_SET,
        LWW_MAP,
        OR_MAP_OF_SETS,
        OR_MAP_OF_MAPS,
        OR_MAP_OF_COUNTERS,
        PAIR,
        LEXICOGRAPHIC,
        LEXICOGRAPHIC_COUNTED,
        RECORD,
        PREFIX_CACHE,
        PREFIX_CACHE_HASH,
    )
}
"""Every shipped spec, by the tag of its type."""
