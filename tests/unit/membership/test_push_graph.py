"""Along the push graph everyone is reached, in few hops, at a fixed number of copies."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.identity import actor_id
from meshlib.membership import (
    MemberRecord,
    TopologyManager,
    push_receivers,
    sparse_graph,
    sparse_neighbours,
)


def member(name: str, region: str = "", zone: str = "") -> MemberRecord:
    return MemberRecord(
        name=name,
        incarnation=1,
        address=name,
        actor=actor_id(name, 1),
        region=region,
        zone=zone,
    )


def spread(count: int, regions: int, zones: int) -> list[MemberRecord]:
    """Return members in turn over regions and zones."""
    return [
        member(f"node-{index}", f"r{index % regions}", f"z{index // regions % zones}")
        for index in range(count)
    ]


def hops_from(graph: dict[str, set[str]], start: str) -> dict[str, int]:
    """Return over how many links each is reached."""
    found = {start: 0}
    queue = deque([start])
    while queue:
        name = queue.popleft()
        for other in sorted(graph[name]):
            if other not in found:
                found[other] = found[name] + 1
                queue.append(other)
    return found


def hops_promised(count: int, degree: int) -> int:
    """Return the least h with degree ** h >= count."""
    hops = 0
    while degree**hops < count:
        hops += 1
    return hops


@pytest.mark.parametrize("degree", [2, 3, 4])
@pytest.mark.parametrize("count", [5, 9, 27, 28, 80, 100, 128, 243, 300])
def test_everyone_in_a_zone_is_reached_in_the_fewest_hops(count: int, degree: int) -> None:
    """No more hops than a tree of that degree needs for as many nodes."""
    ring = [f"n{index}" for index in range(count)]
    graph = {name: push_receivers(ring, name, fanout=degree) for name in ring}
    reached = [hops_from(graph, name) for name in ring]

    assert all(len(hops) == count for hops in reached)
    assert max(max(hops.values()) for hops in reached) <= hops_promised(count, degree)


def test_everyone_has_as_many_senders_as_receivers() -> None:
    """Nobody depends on one link, and nobody is sent more copies than others."""
    ring = [f"n{index}" for index in range(128)]
    senders = Counter(
        receiver for name in ring for receiver in push_receivers(ring, name, fanout=3)
    )

    assert set(senders) == set(ring)
    assert set(senders.values()) <= {2, 3}


def test_a_fanout_of_one_is_taken_as_two() -> None:
    """One receiver each would be pairs that know nothing of each other."""
    ring = [f"n{index}" for index in range(20)]

    assert push_receivers(ring, "n3", fanout=1) == push_receivers(ring, "n3", fanout=2)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(11, 150), regions=st.integers(1, 4), zones=st.integers(1, 4))
def test_entries_reach_every_region_and_zone(count: int, regions: int, zones: int) -> None:
    """Inside a zone by the push graph, between them over the bridges."""
    members = spread(count, regions, zones)
    graph = {
        m.name: set(TopologyManager(m.name).push_targets(members, revision=1, fanout=3))
        for m in members
    }

    assert all(len(hops_from(graph, m.name)) == count for m in members[:3])
    assert all(m.name not in graph[m.name] for m in members)


def test_a_small_cluster_pushes_to_all() -> None:
    """A full mesh is one hop."""
    members = [member(name) for name in "abcde"]

    assert TopologyManager("c").push_targets(members, revision=1, fanout=3) == tuple("abde")


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 120), regions=st.integers(1, 5), zones=st.integers(1, 4))
def test_a_node_computes_its_own_part_of_the_whole_graph(
    count: int, regions: int, zones: int
) -> None:
    """The neighbours that it finds alone are those that the whole graph gives it."""
    members = spread(count, regions, zones)
    graph = sparse_graph(members)

    assert all(sparse_neighbours(members, m.name) == graph[m.name] for m in members)


def test_targets_change_with_those_in_reach() -> None:
    """A new revision is looked at, the same one is not."""
    members = [member(f"n{index}") for index in range(30)]
    topology = TopologyManager("n0")
    before = topology.push_targets(members, revision=1, fanout=3)
    fewer = [m for m in members if m.name not in before]

    assert topology.push_targets(fewer, revision=1, fanout=3) == before
    assert not set(topology.push_targets(fewer, revision=2, fanout=3)) & set(before)
