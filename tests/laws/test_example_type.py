"""The type of `examples/custom_crdt.py`, written outside the package: kit, engine, cluster.

Nothing here reaches into the package: the type is registered and replicated as a user would.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from pathlib import Path

import custom_crdt as example
import pytest
from attrs import evolve

from meshlib import MeshConfig, MeshRuntime
from meshlib.aio import TcpTransport
from meshlib.crdt import register
from meshlib.errors import NotReadyError
from meshlib.gossip import GossipConfig
from meshlib.testing import Simulation, check_machine, draw_scenario, first_violation, laws, mutants
from meshlib.testing.laws.profile import LONG, QUICK, current_profile
from meshlib.testing.laws.suite import LAWS
from meshlib.testing.simulation.workload import Workload
from meshlib.testing.world.hosts import Host

pytestmark = pytest.mark.timeout(1800 if current_profile() is LONG else 60)

PATH = Path(__file__).resolve().parents[2] / "examples" / "custom_crdt.py"

TestBallot = laws(example.BALLOT)

TYPE_TAG = "example.ballot"
register(TYPE_TAG, example.Ballot)


BAR = r"\|"
GUIDE = (PATH.parents[1] / "docs" / "testing-kit.md").read_text()


def test_the_guide_shows_the_counterexample_that_the_kit_prints() -> None:
    """Of the join that it says is broken, word by word."""
    careless = evolve(
        example.BALLOT, join=lambda mine, theirs: example.Ballot({**mine.votes, **theirs.votes})
    )
    violation = first_violation(careless, profile=QUICK)

    assert f"```text\n{violation}\n```" in GUIDE


def test_the_guide_lists_every_law() -> None:
    """By its name, with what it says."""
    rows = [f"| `{law.name}` | {law.statement.replace('|', BAR)} |\n" for law in LAWS.values()]

    assert [row for row in rows if row not in GUIDE] == []


def test_the_type_holds_in_a_machine() -> None:
    """On a bad network, with restarts."""
    check_machine(example.BALLOT)


@pytest.mark.slow
def test_the_specification_has_teeth() -> None:
    """Every mutant of it is caught but those that are known to be harmless."""
    uncaught = [
        mutant.name
        for mutant in mutants(example.BALLOT)
        # A mutant is to be caught soon: the long profile would try each law for long on each.
        if first_violation(mutant.spec, profile=QUICK, is_shrunk=False) is None
    ]

    assert uncaught == []


class VotesBeside:
    """A workload of the simulator in which every other write comes with a vote."""

    def __init__(self, workload: Workload, rng: random.Random) -> None:
        self._workload = workload
        self._rng = rng
        self.latest: dict[bytes, tuple[int, str]] = {}

    def wait_s(self) -> float:
        return self._workload.wait_s()

    def write(self, host: Host, now: float) -> int:
        count = self._workload.write(host, now)
        if self._rng.random() < 0.5:
            option = self._rng.choice(["pizza", "sushi", "soup"])
            replica = host.node.replica
            replica.open("lunch", type_tag=TYPE_TAG)
            try:
                replica.write("lunch", lambda ballot, w: ballot.vote(option, by=w.actor))
            except NotReadyError:  # it does not know yet how its clock stands
                return count
            self.latest[replica.actor] = replica.get("lunch").votes[replica.actor]
        return count


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)
def test_the_type_survives_the_faults_of_the_simulator(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All nodes agree after a lossy, failing network, and no survivor's vote is lost.

    The simulator's own checkers see to it that no node's ballot ever shrinks.
    """
    drawn = draw_scenario(seed, duration_s=20.0)
    scenario = evolve(drawn, network=evolve(drawn.network, loss=max(0.25, drawn.network.loss)))
    simulation = Simulation(scenario)
    votes = VotesBeside(simulation.workload, random.Random(seed))
    monkeypatch.setattr(simulation, "workload", votes)
    outcome = simulation.run()

    assert outcome.failure is None, str(outcome)
    assert outcome.packets_lost > 0
    replicas = [host.node.replica for host in simulation.running()]
    ballots = [replica.get("lunch") for replica in replicas]
    assert [ballots[0]] * len(ballots) == ballots
    survivors = {replica.actor for replica in replicas} & votes.latest.keys()
    assert survivors
    assert {actor: votes.latest[actor] for actor in survivors} == {
        actor: ballots[0].votes[actor] for actor in survivors
    }


def over_tcp(name: str, *seeds: str, port: str = "0") -> MeshRuntime:
    """Return a runtime with a real socket, not started."""
    return MeshRuntime(
        MeshConfig(name=name, address="replaced:1", gossip=GossipConfig.local()),
        transport=TcpTransport(f"127.0.0.1:{port}", token="token of the test"),
        seeds=seeds,
    )


def vote(runtime: MeshRuntime, option: str) -> None:
    """Vote in the name of a node, whichever start of it this is."""
    replica = runtime.node.replica
    replica.open("lunch", type_tag=TYPE_TAG)
    voter = runtime.node.name.encode()
    replica.write("lunch", lambda ballot, _w: ballot.vote(option, by=voter))
    runtime.wake()


async def see(runtimes: list[MeshRuntime], tally: dict[str, int]) -> None:
    """Return once every node counts the same votes."""
    for runtime in runtimes:
        get = runtime.node.replica.get
        await runtime.wait_until(
            partial(lambda get: example.BALLOT.value(get("lunch")) == Counter(tally), get),
            timeout_s=20,
        )


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_three_nodes_over_tcp_count_the_same_votes_through_a_restart(
    anyio_backend: str,
) -> None:
    """A node that is killed and comes back, with nothing kept, finds its vote and changes it."""
    one = over_tcp("one")
    made = [one]
    try:
        await one.start()
        seed = one.transport.address
        for name in ("two", "three"):
            made.append(over_tcp(name, seed))
            await made[-1].start()
            await made[-1].wait_ready()
        for runtime, option in zip(made, ("pizza", "sushi", "soup"), strict=True):
            vote(runtime, option)
        await see(made, {"pizza": 1, "sushi": 1, "soup": 1})

        port = made[2].transport.address.rpartition(":")[2]
        await made.pop().abort()
        vote(one, "sushi")
        made.append(over_tcp("three", seed, port=port))
        await made[2].start()
        await made[2].wait_ready()
        await see(made, {"sushi": 2, "soup": 1})
        vote(made[2], "sushi")
        await see(made, {"sushi": 3})
    finally:
        for runtime in made:
            await runtime.abort()
