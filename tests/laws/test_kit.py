"""The law kit itself: what its users call, and what they read when a law is broken."""

from __future__ import annotations

import subprocess
import sys
import unittest
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given

from meshlib.crdt import GCounter, ORSet
from meshlib.errors import ConfigError, InvalidValueError, UnknownKeyError
from meshlib.testing import (
    CRDTSpec,
    LawViolation,
    Operation,
    check_law,
    deltas,
    first_violation,
    histories,
    law_names,
    laws,
    mutants,
    states,
)
from meshlib.testing.laws.history import DISK_LOST, History
from meshlib.testing.laws.profile import DEFAULT_WORLD, LONG, QUICK, SMALL_WORLD, current_profile
from meshlib.testing.laws.references import find_reference
from meshlib.testing.laws.shortening import shortened
from meshlib.testing.laws.suite import LAWS
from meshlib.testing.laws.trial import Draw, Trial
from meshlib.testing.specs import G_COUNTER, G_SET, LWW_REGISTER, OR_MAP_OF_COUNTERS, OR_SET

MANY = evolve(QUICK, law_examples=200)

FORGETFUL = evolve(OR_SET, name="forgetful", join=lambda mine, theirs: theirs | ORSet())


def test_laws_makes_one_test_for_each_law_that_applies() -> None:
    """A class for a test runner, with the statement of each law as its docstring."""
    made = laws(G_COUNTER)

    names = unittest.defaultTestLoader.getTestCaseNames(made)
    assert sorted(f"test_{name}" for name in law_names(G_COUNTER)) == sorted(names)
    assert vars(made)["test_join_is_commutative"].__doc__ == "A | b == b | a."


def test_a_law_can_be_left_out_by_its_name() -> None:
    """For a type that does not claim to obey it."""
    made = laws(G_COUNTER, exclude=["join_is_idempotent"])

    assert not hasattr(made, "test_join_is_idempotent")
    with pytest.raises(InvalidValueError, match="no law is called 'idempotence'"):
        laws(G_COUNTER, exclude=["idempotence"])


def test_laws_about_what_a_type_has_not_are_left_out() -> None:
    """A type without an encoding, an oracle or parts is checked for the rest."""
    bare = evolve(G_COUNTER, codec=None, oracle=None, decompose=None, absorb=None, digest=None)
    left_out = set(LAWS) - set(law_names(bare))

    assert {
        "absorb_returns_what_was_new",
        "bytes_are_canonical",
        "bytes_are_the_same_in_every_process",
        "bytes_join_as_their_state",
        "codec_round_trips",
        "decomposition_is_irredundant",
        "digest_follows_the_state",
        "malformed_bytes_are_refused",
        "pages_repair_what_differs",
        "value_matches_oracle",
    } == left_out


def test_a_violation_tells_the_shortest_history_that_shows_it() -> None:
    """Step by step, with what was found and what was due."""
    violation = first_violation(FORGETFUL, laws=["value_matches_oracle"], profile=MANY)

    assert violation is not None
    assert violation.law == "value_matches_oracle"
    assert len(violation.history) <= 3
    for words in ("forgetful breaks the law", "write 0: replica", "it ought to frozenset"):
        assert words in str(violation)


@pytest.mark.slow
def test_a_shortest_history_has_no_write_that_is_not_needed() -> None:
    """Two elements are what a join that keeps what both have needs, and two writes make them."""
    (mutant,) = [each for each in mutants(G_SET) if each.name == "join keeps what both have"]
    violation = first_violation(mutant.spec, laws=["join_is_idempotent"], profile=MANY)

    assert violation is not None
    assert len(violation.history) == 2


def test_no_step_of_a_shortened_history_can_be_left_out() -> None:
    """Neither a write nor a delivery: without any of them the law holds."""
    spec = evolve(G_SET, join=lambda a, b: a if len(a) > 1 else a | b, absorb=None)
    add = [("perform", 0, "add", {"element": element}) for element in "abcab"]
    draw = Draw(
        (add[0], ("deliver", 1, 0), *add[1:], ("restart", 1, DISK_LOST), ("exchange", 1, 0)),
        (("join", 0b11111), ("join", 0b00111), ("delta", 2)),
    )
    law = LAWS["join_is_commutative"]
    with pytest.raises(LawViolation) as caught:
        Trial.run(spec, law, DEFAULT_WORLD, draw)
    short = shortened(spec, law, DEFAULT_WORLD, caught.value)

    assert short.draw is not None
    program = short.draw.program
    assert len(program) < len(draw.program)
    for position in range(len(program)):
        fewer = evolve(short.draw, program=[*program[:position], *program[position + 1 :]])
        Trial.run(spec, law, DEFAULT_WORLD, fewer)


def test_check_law_raises_the_violation() -> None:
    """So that it can stand in any test."""
    with pytest.raises(LawViolation, match="join_is_commutative"):
        check_law(FORGETFUL, "join_is_commutative", profile=MANY)
    with pytest.raises(InvalidValueError, match="there are: bottom_is_neutral"):
        check_law(FORGETFUL, "commutativity")


def test_what_a_type_raises_is_a_finding() -> None:
    """An operation may refuse by the errors it names, and by no others."""
    unforeseen = evolve(OR_SET, refusals=())
    violation = first_violation(unforeseen, laws=["join_is_idempotent"], profile=MANY)

    assert violation is not None
    assert "UnknownKeyError was raised" in str(violation)


def test_an_operation_that_refuses_must_have_done_nothing() -> None:
    """A write that fails half way is worse than one that fails."""

    def clumsy(state: ORSet[Any], context: Any, element: Any) -> ORSet[Any]:
        state.absorb(state.add(element, dot=context.dot()))
        raise UnknownKeyError("element", element)

    spec = evolve(OR_SET, operations={"remove": evolve(OR_SET.operations["remove"], apply=clumsy)})
    violation = first_violation(spec, laws=["local_effects_hold"], profile=MANY)

    assert violation is not None
    assert "the state before" in str(violation)


def test_a_full_operation_must_equal_its_delta() -> None:
    """For types that can also return the whole new state."""

    def in_place(state: GCounter, context: Any, amount: int) -> GCounter:
        return state | GCounter().increment(amount, by=context.actor)

    operation = evolve(G_COUNTER.operations["increment"], full=in_place)
    spec = evolve(G_COUNTER, operations={"increment": operation})
    violation = first_violation(spec, laws=["delta_equals_full"], profile=MANY)

    assert violation is not None
    assert "the full operation" in str(violation)


@given(history=histories(OR_SET), state=states(OR_SET), delta=deltas(OR_SET))
@QUICK.settings(20)
def test_strategies_draw_what_histories_lead_to(
    history: History[ORSet[Any]], state: ORSet[Any], delta: ORSet[Any]
) -> None:
    """Histories, states and deltas for a user's own properties."""
    assert len(history.states()) == history.replica_count
    assert (state | delta) | delta == state | delta


def test_a_restarted_replica_writes_as_someone_else() -> None:
    """With a new actor and dots of its own, even where its disk was lost."""
    history = History(OR_SET, replica_count=2)
    write = ("perform", 0, "add", {"element": "a"})
    history.run([write, ("exchange", 1, 0), ("restart", 0, DISK_LOST), write, ("exchange", 1, 0)])

    first, second = history.events
    assert first.actor != second.actor
    assert first.actor[:8] == second.actor[:8]
    assert not second.saw(first)
    assert [0, 1] == [event.index for event in history.visible(1)]
    assert "replica 0 restarts, disk lost" in history.told()


def test_a_program_with_an_unknown_step_is_refused() -> None:
    """A misspelt step would otherwise test nothing."""
    with pytest.raises(InvalidValueError, match="explode"):
        History(OR_SET, replica_count=2).run([("explode", 0)])


def test_a_spec_that_no_process_can_find_is_told_so() -> None:
    """Byte equality across processes needs a spec at the top of a module, or a reference."""
    hidden: CRDTSpec[Any] = evolve(G_COUNTER, name="hidden")

    assert find_reference(G_COUNTER) == "meshlib.testing.specs.counters:G_COUNTER"
    assert find_reference(FORGETFUL).endswith(":FORGETFUL")
    with pytest.raises(ConfigError, match="another process cannot find"):
        check_law(hidden, "bytes_are_the_same_in_every_process")


def test_a_spec_at_a_prompt_is_told_to_need_a_file() -> None:
    """What was typed in, or given by `python -c`, is in no file that another process could load."""
    typed = (
        "from attrs import evolve\n"
        "from meshlib.testing import check_law\n"
        "from meshlib.testing.specs import G_COUNTER\n"
        "MINE = evolve(G_COUNTER, name='mine', reference=None)\n"
        "check_law(MINE, 'bytes_are_the_same_in_every_process')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", typed], capture_output=True, text=True, check=False
    )

    assert "another process cannot find the spec 'mine'" in done.stderr


def test_arguments_that_cannot_travel_to_a_process_are_told_so() -> None:
    """Programs travel as literals, never as code."""
    odd = Operation(
        apply=lambda state, context, amount: state.increment(1, by=context.actor),
        arguments={"amount": states(G_COUNTER)},
    )
    spec = evolve(G_COUNTER, operations={"odd": odd}, reference=find_reference(G_COUNTER))

    with pytest.raises(ConfigError, match="literals"):
        check_law(spec, "bytes_are_the_same_in_every_process")


def test_mutants_of_what_a_type_has_not_are_left_out() -> None:
    """And those that the spec calls harmless."""
    register = {mutant.name for mutant in mutants(LWW_REGISTER)}
    orset = {mutant.name for mutant in mutants(OR_SET)}

    assert "dots are used twice" in orset - register
    assert "stamps stand still" in register - orset
    assert "delta from an empty state" in orset - register
    assert {"context compacted to a maximum", "tombstones dropped early"} <= orset


def test_a_profile_is_picked_by_the_environment() -> None:
    """Quick unless it says otherwise, and a misspelt one is an error."""
    assert current_profile({}) is QUICK
    assert current_profile({"MESHLIB_LAWS_PROFILE": "long"}) is LONG
    with pytest.raises(ConfigError, match="choose one of quick, long, explore"):
        current_profile({"MESHLIB_LAWS_PROFILE": "lnog"})
    assert (2000, 500, 50) == (LONG.law_examples, LONG.machine_examples, LONG.machine_steps)


def test_without_hypothesis_the_error_says_what_to_install() -> None:
    """And the package itself can still be imported."""
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "import meshlib.testing\n"
        "try:\n"
        "    from meshlib.testing import laws\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert "" == result.stderr
    assert "needs hypothesis: pip install 'meshlib-crdt[testing]'" in result.stdout


def test_a_writer_s_contribution_counts_once_where_one_between_is_missing() -> None:
    """The first and the third increment are visible, and the third is a total of all three."""
    increment = ("perform", 0, "increment", {"amount": 1, "key": "a"})
    draw = Draw((increment,) * 3, (("delta", 0), ("delta", 0)))

    Trial.run(OR_MAP_OF_COUNTERS, LAWS["value_matches_oracle"], SMALL_WORLD, draw)
