"""Accuracy of limits: what is admitted of what one perfect counter admits, case by case.

A part of `bench_ratelimit.py`. Nodes join, leave, die and are cut off three seconds after the
beginning; whom it befalls is the owner of the key, whoever is asked from then on another one.
"""

from __future__ import annotations

import csv
import gzip
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from attrs import asdict, frozen
from ratelimit_world import Arrival, LimitWorld

__all__ = ["FAULTS", "accuracy_rows", "is_held_to_a_mark"]

AZURE: Final = Path(__file__).resolve().parent / "data" / "azure_conversation.csv.gz"
TOKENS: Final = "tokens, 1 to 2,000"
AZURE_SHAPES: Final = ("azure, requests", "azure, tokens")
FAULT_S: Final = 3.0
CUT_S: Final = 2.0
SKEW_S: Final = 1.0
TOKEN_MAX: Final = 2000

Row = dict[str, Any]


@frozen(slots=True)
class _Case:
    """What is asked of whom.

    Args:
        shape: how the load is spread, or what goes wrong while it is even.
        nodes: how many there are.
        limit: units a second.
        times: demand, in limits.
        loss: share of frames lost.
    """

    shape: str
    nodes: int
    limit: int
    times: float
    loss: float = 0.0


def _poisson(rate: float, seconds: float, rng: random.Random, most: int) -> list[tuple[float, int]]:
    mean = (1 + most) / 2
    found = []
    at_s = 0.0
    while (at_s := at_s + rng.expovariate(rate / mean)) < seconds:
        found.append((at_s, rng.randint(1, most)))
    return found


Shape = Callable[[float, int, random.Random], int | None]


def _zipf(_at_s: float, nodes: int, rng: random.Random) -> int:
    return rng.choices(range(nodes), [1 / (place + 1) for place in range(nodes)])[0]


SHAPES: Final[dict[str, Shape]] = {
    "even": lambda _at, nodes, rng: rng.randrange(nodes),
    "80 % on one": lambda _at, nodes, rng: 0 if rng.random() < 0.8 else rng.randrange(nodes),
    "zipf": _zipf,
    "a step": lambda at, nodes, rng: rng.randrange(nodes) if at > 3 or rng.random() < 0.2 else None,
    "moving": lambda at, nodes, _rng: int(at / 0.7) % nodes,
    "on/off 0.2 s": lambda at, n, rng: rng.randrange(n) if int(at / 0.2) % 2 == 0 else None,
    "on/off 2 s": lambda at, n, rng: rng.randrange(n) if int(at / 2) % 2 == 0 else None,
}


def _arrivals(
    shape: str, *, limit: int, times: float, nodes: int, seconds: int, most: int = 1
) -> list[Arrival]:
    rng = random.Random(f"{shape}/{limit}/{times}/{nodes}")
    if shape == "all at once":
        each = max(1, round(limit * times / nodes))
        return [
            (second + 0.37, node, "one", 1)
            for second in range(seconds)
            for _ in range(each)
            for node in range(nodes)
        ]
    drawn = _poisson(limit * times, seconds, rng, most)
    placed = ((at_s, SHAPES[shape](at_s, nodes, rng), cost) for at_s, cost in drawn)
    return [(at_s, node, "one", units) for at_s, node, units in placed if node is not None]


def _azure(nodes: int, seconds: int, *, is_tokens: bool) -> list[Arrival]:
    found: list[Arrival] = []
    with gzip.open(AZURE, "rt", newline="") as file:
        begin = None
        for number, row in enumerate(csv.DictReader(file)):
            at = datetime.fromisoformat(row["TIMESTAMP"][:26])
            begin = begin or at
            if (at_s := (at - begin).total_seconds()) >= seconds:
                break
            tokens = int(row["ContextTokens"]) + int(row["GeneratedTokens"])
            found.append((at_s, number % nodes, "one", tokens if is_tokens else 1))
    return found


def _alone(arrivals: list[Arrival], *, part: int) -> Counter[int]:
    """Return what is admitted by second where each node has so much of the limit for itself."""
    used: Counter[tuple[int, int]] = Counter()
    admitted: Counter[int] = Counter()
    for at_s, node, _, units in arrivals:
        if used[node, int(at_s)] + units <= part:
            used[node, int(at_s)] += units
            admitted[int(at_s)] += units
    return admitted


def _naive(arrivals: list[Arrival], *, limit: int, nodes: int, due: int) -> Row:
    """Measure limits that no node knows of another: a part of it each, or all of it each."""
    parts = _alone(arrivals, part=max(1, limit // nodes))
    wholes = _alone(arrivals, part=limit)
    return {
        "parts_ratio": round(sum(parts.values()) / due, 3),
        "parts_worst": round(max(parts.values(), default=0) / limit, 2),
        "wholes_ratio": round(sum(wholes.values()) / due, 3),
        "wholes_worst": round(max(wholes.values(), default=0) / limit, 2),
    }


# What goes wrong


def _owner(world: LimitWorld) -> str:
    first = world.nodes[world.names[0]]
    return first.limiter._view.owner("one")  # noqa: SLF001


def _kill(world: LimitWorld) -> None:
    world.kill(_owner(world))


def _leave(world: LimitWorld) -> None:
    name = _owner(world)
    world.nodes[name].leave(now=world.now)
    world.drain(name)
    world.kill(name)


def _join(world: LimitWorld) -> None:
    world.add(f"node-{len(world.names):04}", "10.1.0.1:7946")


def _cut_off(world: LimitWorld) -> None:
    cut = _owner(world)
    world.side = {name: int(name == cut) for name in world.names}
    world.schedule(world.now + CUT_S, world.side.clear)


def _halve(world: LimitWorld) -> None:
    world.side = {name: place % 2 for place, name in enumerate(world.names)}
    world.schedule(world.now + CUT_S, world.side.clear)


FAULTS: Final[dict[str, Callable[[LimitWorld], None] | None]] = {
    "the owner is killed": _kill,
    "the owner leaves": _leave,
    "a node joins": _join,
    "the owner is cut off, 2 s": _cut_off,
    "cut in two, 2 s": _halve,
    "clocks 2 s apart": None,
}
"""What is done to a cluster; clocks are apart from the beginning."""

GONE: Final = ("the owner is killed", "the owner leaves")


def _skews(case: _Case) -> Sequence[float]:
    """Return by how many seconds each node's wall clock is ahead."""
    if case.shape != "clocks 2 s apart":
        return ()
    return [SKEW_S * (2 * place / (case.nodes - 1) - 1) for place in range(case.nodes)]


# A case


def _arrivals_of(case: _Case, seconds: int) -> tuple[list[Arrival], int]:
    """Return what comes, and the limit; that of the trace follows from its mean demand."""
    if case.shape in AZURE_SHAPES:
        found = _azure(case.nodes, seconds, is_tokens=case.shape == AZURE_SHAPES[1])
        limit = max(1, int(sum(each[3] for each in found) / seconds / case.times))
        return [(*each[:3], min(each[3], limit)) for each in found], limit
    is_even = case.shape in FAULTS or case.shape == TOKENS
    return _arrivals(
        "even" if is_even else case.shape, limit=case.limit, times=case.times, nodes=case.nodes,
        seconds=seconds, most=TOKEN_MAX if case.shape == TOKENS else 1,
    ), case.limit  # fmt: skip


def _let_happen(world: LimitWorld, case: _Case, arrivals: list[Arrival]) -> list[Arrival]:
    """Let happen what the case says; return the arrivals, none of them at a node that is gone."""
    fault = FAULTS.get(case.shape)
    if fault is not None:
        world.schedule(world.now + FAULT_S, fault, world)
    if case.shape not in GONE:
        return arrivals
    gone = world.names.index(_owner(world))
    return [
        (at_s, (node + (node == gone and at_s >= FAULT_S)) % case.nodes, key, units)
        for at_s, node, key, units in arrivals
    ]


def _measure(case: _Case, seconds: int) -> Row:
    arrivals, limit = _arrivals_of(case, seconds)
    arrivals = sorted(arrivals, key=lambda arrival: arrival[0])
    skews = _skews(case)
    row: Row = {}
    for is_confirmed in (True, False):
        world = LimitWorld(case.nodes, limit=limit, loss=case.loss, skews_s=skews)
        world.run(math.ceil(world.now) - world.now)
        world.begin_s = world.now
        ahead_s = skews[world.names.index(_owner(world))] if skews else 0.0
        by_owner = [(at_s + ahead_s, 0, key, units) for at_s, _, key, units in arrivals]
        due = sum(_alone(by_owner, part=limit).values())
        row = row or {"limit": limit, **_naive(arrivals, limit=limit, nodes=case.nodes, due=due)}
        world.offer(_let_happen(world, case, arrivals), is_confirmed=is_confirmed)
        world.run(seconds + 0.99)
        by_second: Counter[int] = Counter()
        for (_, second), units in world.admitted.items():
            by_second[second] += units
        call = "confirmed" if is_confirmed else "never"
        row[f"{call}_ratio"] = round(sum(world.admitted.values()) / due, 3)
        if is_confirmed:
            row["window_max"] = round(max(world.granted.values(), default=0) / limit, 3)
        else:
            row["never_worst"] = round(max(by_second.values(), default=0) / limit, 2)
    return row


# All cases


def _even_cases(is_quick: bool) -> Iterator[tuple[_Case, int]]:
    """Give the cases of even load, by limit and demand; 20,000 a second for a shorter time."""
    for nodes in (3, 8) if is_quick else (1, 3, 8, 32):
        for limit in (5, 300) if is_quick else (1, 5, 20, 300):
            for times in (1.0, 3.0) if is_quick else (0.5, 1.0, 3.0, 10.0):
                yield _Case("even", nodes, limit, times), 4 if is_quick else 8
    for nodes in () if is_quick else (1, 3, 8, 32):
        for times in (0.5, 1.0, 3.0, 10.0):
            yield _Case("even", nodes, 20_000, times), 3


def _cases(is_quick: bool) -> Iterator[tuple[_Case, int]]:
    """Give each case, and how many seconds of it."""
    seconds = 4 if is_quick else 8
    for shape in [*list(SHAPES)[1:], "all at once"]:
        for nodes in (3,) if is_quick else (3, 8, 32):
            yield _Case(shape, nodes, 300, 3.0), seconds
    for loss in (0.1, 0.25):
        for nodes in (3,) if is_quick else (3, 8):
            yield _Case("even", nodes, 300, 3.0, loss), seconds
    for times in (1.0, 3.0, 10.0):
        yield _Case(TOKENS, 8, 20_000, times), seconds
    for shape in FAULTS:
        for nodes in (3,) if is_quick else (3, 8):
            yield _Case(shape, nodes, 300, 3.0), seconds
    for shape in AZURE_SHAPES:
        for times in (1 / 1.5, 3.0):
            yield _Case(shape, 3, 0, round(times, 2)), 20 if is_quick else 240


def accuracy_rows(is_quick: bool, known: Sequence[Row] = ()) -> Iterator[Row]:
    """Compare what is admitted with what one perfect counter admits of the same arrivals.

    Beside it limits that each node keeps for itself: an equal part, one unit at least, or all.

    Args:
        is_quick: whether a few cases do.
        known: rows that need not be measured again.
    """
    found = {_key(row): row for row in known}
    for case, seconds in (*_cases(is_quick), *_even_cases(is_quick)):
        about = asdict(case)
        yield found.get(_key(about)) or {**about, **_measure(case, seconds)}


def _key(row: Row) -> tuple[Any, ...]:
    """Return what a row is told by; the limit of a trace follows from the others."""
    limit = 0 if row["shape"] in AZURE_SHAPES else row["limit"]
    return row["shape"], row["nodes"], limit, row["times"], row["loss"]


def is_held_to_a_mark(row: Row) -> bool:
    """Tell whether the marks of accuracy are about a row: nothing happens to its nodes."""
    return row["shape"] not in FAULTS
