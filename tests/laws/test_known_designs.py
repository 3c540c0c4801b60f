"""Designs that published libraries have shipped, on plain Python data, and the law each breaks.

The two that are right come first and pass every law; the kit must tell them apart from the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve
from hypothesis import strategies as st

from meshlib.codec import pack, unpack
from meshlib.errors import DecodeError
from meshlib.testing import Codec, CRDTSpec, Operation, check_law, first_violation, law_names
from meshlib.testing.laws.profile import QUICK

AMOUNT = {"amount": st.integers(1, 3)}
ELEMENT = {"element": st.sampled_from("xyz")}
MANY = evolve(QUICK, law_examples=600)

Join = Callable[[Any, Any], Any]


def described(name: str, join: Join, bottom: Any, **fields: Any) -> CRDTSpec[Any]:
    """Return the spec of plain data whose order follows from its join."""
    return CRDTSpec(
        name=name, bottom=bottom, join=join, order=lambda a, b: join(a, b) == b, **fields
    )


def pointwise(combine: Callable[[Any, Any], Any]) -> Join:
    """Return a join of dicts that combines the values of common keys."""

    def join(mine: dict[Any, Any], theirs: dict[Any, Any]) -> dict[Any, Any]:
        return {
            key: combine(mine[key], theirs[key])
            if key in mine and key in theirs
            else mine.get(key, theirs.get(key))
            for key in sorted({*mine, *theirs})
        }

    return join


# ---- counters ---------------------------------------------------------------------------------


def increment(state: dict[Any, int], context: Any, amount: int) -> dict[Any, int]:
    return {context.actor: state.get(context.actor, 0) + amount}


COUNTER = described(
    "totals of each writer",
    pointwise(max),
    dict,
    operations={"increment": Operation(apply=increment, arguments=AMOUNT)},
    value=lambda state: sum(state.values()),
    oracle=lambda events: sum(event["amount"] for event in events),
    carries=lambda later, earlier: later.actor == earlier.actor,
)

ONE_TOTAL = evolve(
    COUNTER,
    name="one total for all writers",
    operations={
        "increment": Operation(
            apply=lambda state, _context, amount: {"": state.get("", 0) + amount},
            arguments=AMOUNT,
        )
    },
)

ADDED = evolve(COUNTER, name="totals that are added", join=pointwise(lambda a, b: a + b))

INCREMENTS = evolve(
    COUNTER,
    name="increments for totals",
    operations={
        "increment": Operation(
            apply=lambda _state, context, amount: {context.actor: amount}, arguments=AMOUNT
        )
    },
)


def subtract_all(state: dict[Any, tuple[int, int]], context: Any) -> dict[Any, tuple[int, int]]:
    added, taken = state.get(context.actor, (0, 0))
    total = sum(up - down for up, down in state.values())
    return {context.actor: (added, taken + total)}


RESET_BY_SUBTRACTION = described(
    "a counter that is reset by subtracting what it shows",
    pointwise(lambda a, b: (max(a[0], b[0]), max(a[1], b[1]))),
    dict,
    operations={
        "hit": Operation(
            apply=lambda state, context: {
                context.actor: (
                    state.get(context.actor, (0, 0))[0] + 1,
                    state.get(context.actor, (0, 0))[1],
                )
            }
        ),
        "reset": Operation(apply=subtract_all),
    },
    value=lambda state: sum(up - down for up, down in state.values()),
    oracle=lambda events: sum(
        event.operation == "hit"
        and not any(later.operation == "reset" and later.saw(event) for later in events)
        for event in events
    ),
    carries=lambda later, earlier: later.actor == earlier.actor,
)

# ---- sets -------------------------------------------------------------------------------------
# A state is (live, seen): the live dots as (element, dot), and the context, a frozenset of dots.

NOTHING: tuple[frozenset[Any], frozenset[Any]] = (frozenset(), frozenset())


def join_dots(mine: Any, theirs: Any) -> Any:
    (live, seen), (other_live, other_seen) = mine, theirs
    kept = {(e, dot) for e, dot in live if (e, dot) in other_live or dot not in other_seen}
    kept |= {(e, dot) for e, dot in other_live if dot not in seen}
    return frozenset(kept), seen | other_seen


def add(_state: Any, context: Any, element: str) -> Any:
    dot = context.dot()
    return frozenset({(element, dot)}), frozenset({dot})


def remove(state: Any, _context: Any, element: str) -> Any:
    return frozenset(), frozenset(dot for e, dot in state[0] if e == element)


def in_set(events: Any) -> frozenset[str]:
    """An addition counts unless a visible removal had it live: it, and nothing else, kills it."""
    removals = [event for event in events if event.operation == "remove"]
    return frozenset(
        event["element"]
        for event in events
        if event.operation == "add" and not any(kills(removal, event) for removal in removals)
    )


def kills(removal: Any, addition: Any) -> bool:
    return (
        removal["element"] == addition["element"]
        and removal.saw(addition)
        and not any(
            earlier.operation == "remove" and kills(earlier, addition) for earlier in removal.seen
        )
    )


ADD_WINS = described(
    "dots with an exact context",
    join_dots,
    lambda: NOTHING,
    operations={
        "add": Operation(apply=add, arguments=ELEMENT),
        "remove": Operation(
            apply=remove,
            arguments=ELEMENT,
            ensures=lambda _before, after, element: all(e != element for e, _ in after[0]),
        ),
    },
    value=lambda state: frozenset(element for element, _ in state[0]),
    oracle=in_set,
)


def compacted(state: Any) -> Any:
    """Return a state that claims every dot below the newest of each writer."""
    live, seen = state
    tops: dict[Any, int] = {}
    for dot in seen:
        tops[dot.actor] = max(tops.get(dot.actor, 0), dot.sequence)
    claimed = {dot._replace(sequence=n) for dot in seen for n in range(1, tops[dot.actor] + 1)}
    return live, frozenset(claimed)


COMPACTED = evolve(
    ADD_WINS,
    name="a context that is compacted to a maximum",
    join=lambda a, b: join_dots(compacted(a), compacted(b)),
)

WITHOUT_DOTS = evolve(
    ADD_WINS,
    name="a removal without dots",
    operations={
        **ADD_WINS.operations,
        "remove": evolve(ADD_WINS.operations["remove"], apply=lambda *_, **__: NOTHING),
    },
)

UNION_OF_TAGS = evolve(
    ADD_WINS,
    name="tags that a removal clears and a merge unites",
    join=lambda a, b: (a[0] | b[0], a[1] | b[1]),
    order=lambda a, b: a[0] <= b[0] and a[1] <= b[1],
)


def newest_dots(mine: Any, theirs: Any) -> Any:
    """Join, and keep of the dots of one element and writer the newest alone."""
    live, seen = join_dots(mine, theirs)
    newest: dict[Any, Any] = {}
    for element, dot in live:
        key = (element, dot.actor)
        newest[key] = max(newest.get(key, dot), dot)
    return frozenset((element, dot) for (element, _), dot in newest.items()), seen


NEWEST_DOT = evolve(ADD_WINS, name="the newest dot of each element and writer", join=newest_dots)

# ---- the rest ---------------------------------------------------------------------------------

REGISTER = described(
    "a register by time alone",
    lambda mine, theirs: theirs if theirs[0] > mine[0] else mine,
    lambda: (0, None),
    operations={
        "set": Operation(
            apply=lambda _state, context, element: (context.stamp().wall_ms, element),
            arguments=ELEMENT,
        )
    },
    value=lambda state: state[1],
)

MAXIMUM = described(
    "a maximum of floats",
    max,
    lambda: -math.inf,
    operations={
        "offer": Operation(
            apply=lambda _state, _context, number: number,
            arguments={"number": st.sampled_from([1.0, 2.0, math.nan])},
        )
    },
    value=lambda state: state,
)

TWO_PHASE = CRDTSpec(
    name="a two-phase set with `or` in its order",
    bottom=lambda: NOTHING,
    join=lambda a, b: (a[0] | b[0], a[1] | b[1]),
    order=lambda a, b: a[0] <= b[0] or a[1] <= b[1],
    operations={
        "add": Operation(
            apply=lambda _s, _c, element: (frozenset({element}), frozenset()), arguments=ELEMENT
        ),
        "remove": Operation(
            apply=lambda _s, _c, element: (frozenset(), frozenset({element})), arguments=ELEMENT
        ),
    },
    value=lambda state: state[0] - state[1],
)

UNSORTED = CRDTSpec(
    name="a set that is encoded as it comes",
    bottom=frozenset,
    join=frozenset.union,
    order=frozenset.issubset,
    operations={
        "add": Operation(
            apply=lambda _state, _context, element: frozenset({element}), arguments=ELEMENT
        )
    },
    value=lambda state: state,
    codec=Codec(
        encode=lambda state: ",".join(state).encode(),
        decode=lambda data: frozenset(filter(None, data.decode("latin-1").split(","))),
        errors=(),
    ),
)

SHARED = described(
    "a map that keeps the list it is given",
    pointwise(max),
    dict,
    operations={
        "put": Operation(
            apply=lambda _state, context, items: {context.actor: (context.sequence, items)},
            arguments={"items": st.lists(st.integers(0, 3), max_size=2)},
        )
    },
    value=lambda state: sorted(items for _, items in state.values()),
    oracle=lambda events: sorted({event.actor: event["items"] for event in events}.values()),
)

Board = tuple[tuple[int, str], ...]


def best_three(mine: Board, theirs: Board) -> Board:
    return tuple(sorted({*mine, *theirs}, reverse=True)[:3])


def board_decoder(rows_max: int) -> Callable[[bytes], Board]:
    """Return a decoder of boards; beside their length it checks rows, order, and repetition."""

    def decode(data: bytes) -> Board:
        rows = unpack(data)
        if not isinstance(rows, tuple) or len(rows) > rows_max:
            raise DecodeError("not a board")
        for row in rows:
            if not isinstance(row, tuple) or [type(field) for field in row] != [int, str]:
                raise DecodeError("not a row of a board")
        if list(rows) != sorted(set(rows), reverse=True):
            raise DecodeError("a board out of order")
        return rows

    return decode


BOARD = described(
    "a board of the best three",
    best_three,
    tuple,
    operations={
        "post": Operation(
            apply=lambda _board, _context, score, player: ((score, player),),
            arguments={"score": st.integers(1, 5), "player": st.sampled_from(["ann", "ben"])},
        )
    },
    value=lambda board: board,
    oracle=lambda events: best_three(
        (), tuple((event["score"], event["player"]) for event in events)
    ),
    codec=Codec(encode=pack, decode=board_decoder(3)),
)

FOUR_DECODED = evolve(
    BOARD,
    name="a board of three that is read with four",
    codec=Codec(encode=pack, decode=board_decoder(1000)),
)


def unite(mine: set[str], theirs: set[str]) -> set[str]:
    mine |= theirs
    return mine


UNITED_IN_PLACE = CRDTSpec(
    name="a set that is united in place",
    bottom=set,
    join=unite,
    order=set.issubset,
    operations={
        "add": Operation(apply=lambda _state, _context, element: {element}, arguments=ELEMENT)
    },
    value=frozenset,
)

BROKEN = [
    (ONE_TOTAL, "value_matches_oracle"),
    (ADDED, "join_is_idempotent"),
    (INCREMENTS, "value_matches_oracle"),
    (RESET_BY_SUBTRACTION, "value_matches_oracle"),
    (COMPACTED, "value_matches_oracle"),
    (WITHOUT_DOTS, "local_effects_hold"),
    (UNION_OF_TAGS, "local_effects_hold"),
    (NEWEST_DOT, "join_is_associative"),
    (REGISTER, "join_is_commutative"),
    (MAXIMUM, "join_is_commutative"),
    (TWO_PHASE, "order_agrees_with_join"),
    (UNSORTED, "bytes_are_the_same_in_every_process"),
    (SHARED, "value_matches_oracle"),
    (FOUR_DECODED, "malformed_bytes_are_refused"),
    (UNITED_IN_PLACE, "inputs_are_never_changed"),
]


@pytest.mark.slow
@pytest.mark.parametrize("spec", [COUNTER, ADD_WINS, BOARD], ids=lambda spec: spec.name)
def test_a_sound_design_passes_every_law(spec: CRDTSpec[Any]) -> None:
    """The kit blames nobody without reason."""
    for law in law_names(spec):
        check_law(spec, law, profile=evolve(QUICK, law_examples=100))


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "law"), BROKEN, ids=lambda item: getattr(item, "name", item))
def test_a_known_mistake_is_caught(spec: CRDTSpec[Any], law: str) -> None:
    """By the law that its users would have needed."""
    violation = first_violation(spec, laws=[law], profile=MANY, is_shrunk=False)

    assert violation is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec", [ONE_TOTAL, INCREMENTS, RESET_BY_SUBTRACTION], ids=lambda spec: spec.name
)
def test_some_mistakes_are_lattices_and_only_the_oracle_sees_them(spec: CRDTSpec[Any]) -> None:
    """They converge, to the wrong value: laws of the join alone would pass them."""
    others = [law for law in law_names(spec) if law != "value_matches_oracle"]

    assert first_violation(spec, laws=others, profile=QUICK) is None


@pytest.mark.slow
def test_a_state_out_of_normal_form_is_shown_by_its_own_join() -> None:
    """Four rows on a board of three were decoded, and a join with itself has three."""
    violation = first_violation(FOUR_DECODED, profile=QUICK)

    assert violation is not None
    assert violation.law == "malformed_bytes_are_refused"
    assert "joined with" in str(violation)


@pytest.mark.parametrize("law", law_names(UNITED_IN_PLACE))
def test_a_join_in_place_is_called_that_whichever_law_breaks(law: str) -> None:
    """What it breaks is another law each time; what is wrong is one thing."""
    violation = first_violation(UNITED_IN_PLACE, laws=[law], profile=QUICK)

    assert violation is None or violation.law == "inputs_are_never_changed"
    assert violation is None or "a | b changed a" in str(violation)


def test_a_join_in_place_breaks_the_law_that_is_tried_first() -> None:
    """And it is reported as what it is."""
    violation = first_violation(UNITED_IN_PLACE, profile=QUICK)

    assert violation is not None
    assert violation.law == "inputs_are_never_changed"
