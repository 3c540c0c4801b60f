"""The graph of who talks to whom is connected, symmetric, and of logarithmic degree."""

from __future__ import annotations

import math
from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.errors import ConfigError
from meshlib.identity import actor_id
from meshlib.membership import MemberRecord, MemberStatus, TopologyManager, sparse_graph


def member(name: str, region: str = "", zone: str = "") -> MemberRecord:
    return MemberRecord(
        name=name,
        incarnation=1,
        address=name,
        actor=actor_id(name, 1),
        region=region,
        zone=zone,
    )


@st.composite
def memberships(draw: st.DrawFn) -> list[MemberRecord]:
    """Up to 300 nodes in any spread over regions and zones."""
    count = draw(st.integers(1, 300))
    region_count = draw(st.integers(1, 40))
    zone_count = draw(st.integers(1, 40))
    rng = draw(st.randoms(use_true_random=False))
    skew = draw(st.sampled_from([1.0, 4.0]))
    return [
        member(
            f"node-{index}",
            f"r{int(rng.random() ** skew * region_count)}",
            f"z{int(rng.random() ** skew * zone_count)}",
        )
        for index in range(count)
    ]


def distances(graph: dict[str, set[str]], start: str) -> dict[str, int]:
    """Return the hops from one node to all it reaches."""
    found = {start: 0}
    queue = deque([start])
    while queue:
        name = queue.popleft()
        for other in graph[name]:
            if other not in found:
                found[other] = found[name] + 1
                queue.append(other)
    return found


def rounded_log2(count: int) -> int:
    """Return the fingers of a ring: `log2(count)`, rounded up."""
    return (count - 1).bit_length()


@settings(max_examples=100, deadline=None)
@given(memberships(), st.integers(0, 299))
def test_the_sparse_graph_is_connected_with_the_promised_degree_and_diameter(
    members: list[MemberRecord], start: int
) -> None:
    """For every membership up to 300 nodes, in any spread over regions and zones."""
    graph = sparse_graph(members)
    in_zone = Counter((member.region, member.zone) for member in members)
    zones = Counter(region for region, _ in in_zone)
    degree_max = (
        2 * rounded_log2(max(in_zone.values()))
        + 4 * rounded_log2(max(zones.values()))
        + 2 * rounded_log2(len(zones))
    )
    hops = distances(graph, members[start % len(members)].name)

    assert len(hops) == len(members)
    assert max(len(peers) for peers in graph.values()) <= degree_max
    assert max(hops.values()) <= 2 * (math.log2(len(members)) + 1)


@settings(max_examples=30, deadline=None)
@given(memberships())
def test_neighbours_are_mutual(members: list[MemberRecord]) -> None:
    """If one counts another as a neighbour, the other counts it too."""
    graph = sparse_graph(members)

    assert all(name in graph[other] for name, peers in graph.items() for other in peers)


def test_the_graph_does_not_depend_on_the_order_of_members() -> None:
    """Each node computes the same graph from the same membership."""
    members = [member(f"n{index}", f"r{index % 3}", f"z{index % 2}") for index in range(60)]

    assert sparse_graph(members) == sparse_graph(members[::-1])


def test_a_small_cluster_is_a_full_mesh() -> None:
    """Up to the threshold everybody talks to everybody."""
    members = [member(name) for name in "abcdefghij"]
    topology = TopologyManager("c", full_mesh_threshold=10)

    assert topology.neighbours(members, revision=1) == tuple("abdefghij")


def test_a_large_cluster_is_sparse() -> None:
    """Above the threshold a node has far fewer neighbours than there are nodes."""
    members = [member(f"n{index}") for index in range(200)]
    topology = TopologyManager("n7", full_mesh_threshold=10)

    assert len(topology.neighbours(members, revision=1)) <= 2 * math.log2(200) + 2


def test_members_out_of_reach_are_no_neighbours() -> None:
    """A Down member is not talked to."""
    down = MemberRecord(
        name="b", incarnation=1, address="b", actor=actor_id("b", 1), status=MemberStatus.DOWN
    )
    topology = TopologyManager("a")

    assert topology.neighbours([member("a"), down, member("c")], revision=1) == ("c",)


def test_a_threshold_below_one_is_refused() -> None:
    """A full mesh of nobody makes no sense."""
    with pytest.raises(ConfigError, match="full_mesh_threshold"):
        TopologyManager("a", full_mesh_threshold=0)
