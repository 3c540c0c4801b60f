"""A type of one's own: written, checked against every law, broken on purpose, put in the mesh.

Run: python examples/custom_crdt.py     (needs the extra `testing`)
"""
# ruff: noqa: D102 - what these methods do is said by `meshlib.crdt.Lattice`

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import evolve, field, frozen
from hypothesis import strategies as st

from meshlib import Document, MemoryNetwork, MeshConfig, MeshRuntime
from meshlib.codec import pack
from meshlib.crdt import register
from meshlib.errors import DecodeError
from meshlib.hashing import hash64
from meshlib.testing import CRDTSpec, Operation, first_violation, law_names


@frozen
class Ballot:
    """Who votes for what: voter -> (how often they have voted, their latest choice)."""

    votes: Mapping[bytes, tuple[int, str]] = field(factory=dict)

    def vote(self, option: str, *, by: bytes) -> Ballot:
        return Ballot({by: (self.votes.get(by, (0, ""))[0] + 1, option)})  # the delta, no more

    def __or__(self, other: Ballot) -> Ballot:
        later = {by: max(vote, self.votes.get(by, vote)) for by, vote in other.votes.items()}
        return Ballot({**self.votes, **later})

    def __le__(self, other: Ballot) -> bool:
        return all(vote <= other.votes.get(by, (0, "")) for by, vote in self.votes.items())

    def is_bottom(self) -> bool:
        return not self.votes

    def decompose(self) -> Iterator[Ballot]:
        return (Ballot({by: vote}) for by, vote in self.votes.items())

    def digest(self) -> int:
        return hash64(pack(self.to_wire()))

    def to_wire(self) -> Any:
        return sorted((by, number, option) for by, (number, option) in self.votes.items())

    @classmethod
    def from_wire(cls, wire: Any) -> Ballot:
        try:
            votes = {by: (number, option) for by, number, option in wire}
        except (TypeError, ValueError) as error:
            raise DecodeError("not a ballot") from error
        for by, (number, option) in votes.items():
            if (type(by), type(number), type(option)) != (bytes, int, str) or number < 1:
                raise DecodeError("not a vote")
        return cls(votes)


def tally(events: Any) -> dict[str, int]:
    """Say what a ballot is, from the writes alone: everybody's latest vote counts."""
    return Counter({event.actor: event["option"] for event in events}.values())


VOTE: Operation[Ballot] = Operation(
    apply=lambda ballot, context, option: ballot.vote(option, by=context.actor),
    arguments={"option": st.sampled_from(["pizza", "sushi"])},
)
BALLOT: CRDTSpec[Ballot] = CRDTSpec(
    name="ballot",
    bottom=Ballot,
    operations={"vote": VOTE},
    value=lambda ballot: Counter(option for _, option in ballot.votes.values()),
    oracle=tally,
)


def check() -> None:
    """Try every law on the type, and one on a join as it is easily written by mistake."""
    assert first_violation(BALLOT) is None
    print(f"{len(law_names(BALLOT))} laws hold")
    careless = evolve(BALLOT, join=lambda mine, theirs: Ballot({**mine.votes, **theirs.votes}))
    violation = first_violation(careless)
    assert violation is not None
    print(f"\nwith a join in which the vote that arrives last stays:\n\n{violation}\n")


async def put_in_the_mesh() -> None:
    """Vote on both of two nodes, and read the same tally on each."""
    register("example.ballot", Ballot)
    network = MemoryNetwork()
    here, there = (
        MeshRuntime(MeshConfig(name=who), transport=network.transport(f"{who}:1"), seeds=["here:1"])
        for who in ("here", "there")
    )

    def vote(ballots: Document[Ballot], option: str) -> None:
        ballots.write(lambda ballot, w: ballot.vote(option, by=w.actor))

    async with here, there:
        await there.wait_ready()
        mine, theirs = here.document("lunch", Ballot), there.document("lunch", Ballot)
        for ballots, option in ((mine, "pizza"), (theirs, "sushi"), (mine, "sushi")):
            vote(ballots, option)
        await here.wait_until(lambda: BALLOT.value(mine.state) == {"sushi": 2})
        await there.wait_until(lambda: BALLOT.value(theirs.state) == {"sushi": 2})
    print("in the mesh, both nodes count {'sushi': 2}")


if __name__ == "__main__":
    check()
    asyncio.run(put_in_the_mesh())
