"""Every type as replicas on a bad network, with restarts and lost disks.

`MESHLIB_LAWS_PROFILE=long pytest tests/stateful` runs 500 machines of 50 steps for each type.
"""

from __future__ import annotations

import pytest
from attrs import evolve

from meshlib.testing import CRDTSpec, LawViolation, check_machine, machine
from meshlib.testing.laws.machine import ReplicaMachine
from meshlib.testing.laws.profile import LONG, QUICK, current_profile
from meshlib.testing.specs import G_COUNTER, OR_SET, SPECS

pytestmark = pytest.mark.timeout(1800 if current_profile() is LONG else 60)

MANY = evolve(QUICK, machine_examples=400, machine_steps=40)


@pytest.mark.parametrize("name", SPECS)
def test_replicas_show_their_visible_writes_and_end_up_equal(name: str) -> None:
    """Whatever the network and the disks do."""
    check_machine(SPECS[name])


@pytest.mark.parametrize("spec", [G_COUNTER, OR_SET], ids=lambda spec: spec.name)
def test_a_restart_under_the_old_name_is_seen(spec: CRDTSpec[object]) -> None:
    """A replica that lost its disk and counts from 1 again loses writes, and the machine sees."""
    with pytest.raises(LawViolation, match="restarts, disk lost"):
        check_machine(evolve(spec, is_reincarnated=False), profile=MANY, is_shrunk=False)


def test_a_digest_that_falls_behind_is_seen() -> None:
    """What a type keeps up incrementally is compared with what is computed anew."""
    behind = evolve(OR_SET, digest=lambda state: id(state))

    with pytest.raises(LawViolation, match="their digests differ"):
        check_machine(behind, profile=MANY, is_shrunk=False)


def test_a_machine_is_a_hypothesis_machine() -> None:
    """Its `TestCase` is for a test runner, and its rules can be added to by a subclass."""
    made = machine(OR_SET, replica_count=2)

    assert issubclass(made, ReplicaMachine)
    assert {"add", "remove", "clear", "deliver", "drop", "restart"} <= set(dir(made))
