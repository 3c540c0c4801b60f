"""Every law on every type.

`MESHLIB_LAWS_PROFILE=long pytest tests/laws` tries 2,000 examples a law.
"""

from __future__ import annotations

import pytest

import meshlib.crdt
from meshlib.crdt import Embedded, Record, encode
from meshlib.testing import laws, specs
from meshlib.testing.laws.profile import LONG, current_profile
from meshlib.testing.specs import SPECS

if current_profile() is not LONG:
    pytestmark = pytest.mark.timeout(60)
else:
    pytestmark = pytest.mark.timeout(1800)

TestGCounter = laws(specs.G_COUNTER)
TestPNCounter = laws(specs.PN_COUNTER)
TestWindowCounter = laws(specs.WINDOW_COUNTER)
TestBoundedCounter = laws(specs.BOUNDED_COUNTER)
TestLWWRegister = laws(specs.LWW_REGISTER)
TestMVRegister = laws(specs.MV_REGISTER)
TestMaxRegister = laws(specs.MAX_REGISTER)
TestMinRegister = laws(specs.MIN_REGISTER)
TestEnableWinsFlag = laws(specs.ENABLE_WINS_FLAG)
TestDisableWinsFlag = laws(specs.DISABLE_WINS_FLAG)
TestGSet = laws(specs.G_SET)
TestTwoPhaseSet = laws(specs.TWO_PHASE_SET)
TestORSet = laws(specs.OR_SET)
TestRemoveWinsSet = laws(specs.REMOVE_WINS_SET)
TestLWWMap = laws(specs.LWW_MAP)
TestORMapOfSets = laws(specs.OR_MAP_OF_SETS)
TestORMapOfMaps = laws(specs.OR_MAP_OF_MAPS)
TestORMapOfCounters = laws(specs.OR_MAP_OF_COUNTERS)
TestPair = laws(specs.PAIR)
TestLexicographic = laws(specs.LEXICOGRAPHIC)
TestLexicographicCounted = laws(specs.LEXICOGRAPHIC_COUNTED)
TestRecord = laws(specs.RECORD)
TestPrefixCache = laws(specs.PREFIX_CACHE)
TestPrefixCacheHash = laws(specs.PREFIX_CACHE_HASH)


def test_every_exported_type_has_a_spec() -> None:
    """A type that is exported without a spec would be checked by nobody."""
    building_blocks = {Record, Embedded, meshlib.crdt.CausalContext}
    types = {
        item
        for item in vars(meshlib.crdt).values()
        if isinstance(item, type) and hasattr(item, "to_wire") and not hasattr(item, "_is_protocol")
    }
    checked = {base for spec in SPECS.values() for base in type(spec.bottom()).__mro__}

    assert types - building_blocks - checked == set()


def test_every_spec_has_a_test_class() -> None:
    """A spec that no class here takes up would never run."""
    taken = {item.__doc__ for name, item in globals().items() if name.startswith("Test")}

    assert {f"The laws of {name}." for name in SPECS} == taken


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_is_named_after_the_tag_of_its_type(name: str) -> None:
    """So that a failure names what a document's type is called on the wire."""
    data = encode(SPECS[name].bottom())

    assert name.encode() in data
