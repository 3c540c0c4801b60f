"""Many rounds of restarts of real processes, of much state and of little, drawn from a seed.

By hand, with a line printed for each round:

    MESHLIB_ROLL_ROUNDS=20 pytest -s -m long tests/processes/test_rolls_for_long.py

`MESHLIB_ROLL_SEED` (0) draws other rounds. `test_rolls.py` has a round or two of each.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from typing import Final

import pytest
from support.rolls import Kept, end, keys_of, nodes_of, start_ready, timed_restart
from support.servers import Launcher, Node

pytestmark = [pytest.mark.long, pytest.mark.timeout(3_600)]

ROUNDS: Final = int(os.environ.get("MESHLIB_ROLL_ROUNDS", "20"))
SEED: Final = int(os.environ.get("MESHLIB_ROLL_SEED", "0"))

SIGNALS: Final = (signal.SIGTERM, signal.SIGKILL)

LARGE: Final = (400, 262_000)
"""Keys, and bytes of each: 105 MB."""

SMALL: Final = (2_000, 2_000)

AWAY_S: Final = 70.0
"""Longer than those who have gone of late are looked for more often than others."""


class Rounds:
    """Prints a line for each round."""

    def __init__(self, what: str) -> None:
        self._what = f"{what}, seed {SEED}"
        self._count = 0
        self._began_at = time.monotonic()

    def tell(self, text: str) -> None:
        """Print what was done in a round that has ended well."""
        self._count += 1
        took_s = time.monotonic() - self._began_at
        sys.stdout.write(f"\n{self._what}: round {self._count} ({took_s:.0f} s): {text}")
        sys.stdout.flush()


def test_a_roll_loses_nothing_in_any_round(own_launcher: Launcher) -> None:
    """Three nodes, told to end one after the other, each awaited by its `/readyz`."""
    rounds, kept = Rounds("roll of 3, 400 keys of 262,000 bytes"), Kept(random.Random(SEED))
    nodes = nodes_of(own_launcher, 3)
    start_ready(nodes)
    kept.write(nodes, *LARGE)
    kept.await_at(nodes)

    for number in range(ROUNDS):
        done = []
        for node in nodes:
            done.append(timed_restart([node], signal.SIGTERM))
            kept.check([node], f"round {number}")
        rounds.tell("; ".join(done))
    kept.check(nodes, "in the end")


@pytest.mark.parametrize("size", [LARGE, SMALL], ids=["large", "small"])
def test_two_that_start_together_lose_nothing_in_any_round(
    own_launcher: Launcher, size: tuple[int, int]
) -> None:
    """Two that are new beside one that holds all, which ends once both say that they are ready."""
    count, value_bytes = size
    rounds = Rounds(f"two beside a third, {count:,} keys of {value_bytes:,} bytes")
    rng = random.Random(SEED)
    kept = Kept(rng)
    [third] = nodes_of(own_launcher, 1, "first")
    start_ready([third])
    kept.write([third], *size)

    for number in range(ROUNDS):
        ports = own_launcher.free_ports(2)
        newcomers = [
            own_launcher.node(f"r{number}-{index}", port=port, peers=[third.port, ports[1 - index]])
            for index, port in enumerate(ports)
        ]
        began_at = time.monotonic()
        start_ready(newcomers)
        ready_s = time.monotonic() - began_at
        kept.check(newcomers, f"round {number} at ready")
        how = rng.choice(SIGNALS)
        end([third], how)
        kept.check(newcomers, f"round {number} without {third.name}")
        rounds.tell(f"{third.name} {how.name} after {ready_s:.1f} s")
        third, other = newcomers
        end([other], signal.SIGKILL)


@pytest.mark.parametrize("count", [3, 5])
def test_random_rolls_lose_nothing_in_any_round(own_launcher: Launcher, count: int) -> None:
    """One, two or all but one at a time, told to end or killed, while more is written."""
    rounds, rng = Rounds(f"random rolls of {count}"), random.Random(SEED)
    kept = Kept(rng)
    nodes = nodes_of(own_launcher, count)
    start_ready(nodes)
    kept.write(nodes, 40, 50_000)
    kept.await_at(nodes)

    for number in range(ROUNDS):
        batch = rng.sample(nodes, rng.choice((1, 2, count - 1)))
        done = timed_restart(batch, rng.choice(SIGNALS))
        kept.check(nodes, f"round {number}")
        rounds.tell(f"{done}, {len(kept.values)} keys")
        kept.write(nodes, 5, 50_000)
        kept.await_at(nodes)


@pytest.mark.parametrize("how", SIGNALS)
def test_the_first_of_a_cluster_comes_back_with_all_after_a_minute(
    own_launcher: Launcher, how: signal.Signals
) -> None:
    """It was told of no peer, so it begins with nothing: the others find it before it is ready.

    As an operator rolls: whoever is ready is trusted to have all, so the others are next.
    """
    first, *others = cluster_of_a_first(own_launcher)
    kept = Kept(random.Random(SEED))
    kept.write([first, *others], 40, 50_000)
    kept.await_at([first, *others])

    end([first], how)
    time.sleep(AWAY_S)
    start_ready([first])
    found = keys_of(first)
    for node in others:
        timed_restart([node], how)

    assert set(kept.values) == found
    kept.check([first, *others], "after the roll")


def cluster_of_a_first(launcher: Launcher) -> list[Node]:
    """Start three nodes of which the first knows nobody, and all others know it alone."""
    port, *ports = launcher.free_ports(3)
    # As it is by default: for how long a node that begins at once is silent about it.
    listening = {"MESH_GOSSIP_BOOTSTRAP_LISTEN_S": "1"}
    first = launcher.node("first", port=port, environment=listening)
    others = [launcher.node(f"n{p}", port=p, peers=[port], environment=listening) for p in ports]
    start_ready([first])
    start_ready(others)
    return [first, *others]
