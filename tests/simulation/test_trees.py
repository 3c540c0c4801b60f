"""Trees that are full in whole simulated clusters, under the faults that a seed draws."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from meshlib.crdt import PrefixCacheState
from meshlib.crdt.prefix_cache.tenant_cache import TenantCache
from meshlib.routing import TREE_PREFIX, PrefixSync
from meshlib.testing.simulation.prompt_use import PROMPTS_MODEL, ROOM
from meshlib.testing.simulation.simulation import Simulation
from meshlib.testing.world.drawing import draw_scenario


def simulation_of(seed: int, prefix_sync: PrefixSync, *, duration_s: float = 20.0) -> Simulation:
    """Return a run with the faults of a seed, and prompts that make room for each other."""
    scenario = draw_scenario(seed, node_count=4, duration_s=duration_s)
    tuning = evolve(scenario.tuning, prompts_per_s=6.0, prefix_sync=prefix_sync)
    return Simulation(evolve(scenario, tuning=tuning))


def caches(simulation: Simulation) -> list[Any]:
    """Return the tree of the prompts on each node that runs."""
    hosts: list[Any] = simulation.running()
    return [host.node.replica.get(TREE_PREFIX + PROMPTS_MODEL).cache for host in hosts]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("prefix_sync", PrefixSync)
def test_full_trees_are_equal_in_the_end(seed: int, prefix_sync: PrefixSync) -> None:
    """Whatever is lost, killed or cut off, and though each node drops what others still name."""
    simulation = simulation_of(seed, prefix_sync)

    outcome = simulation.run()

    assert outcome.failure is None, outcome.failure
    first, *others = caches(simulation)
    assert all(first == other for other in others)
    assert len(first) > 0
    assert any(first.generation(tenant).floor for tenant in first.known_tenants())
    if prefix_sync is PrefixSync.TEXT:
        assert isinstance(first, PrefixCacheState)
        assert first.size < 4 * ROOM
        assert outcome.sometimes["beginning_named"]
        assert outcome.sometimes["beginning_unknown"]


@pytest.mark.slow
@pytest.mark.parametrize("prefix_sync", PrefixSync)
def test_a_planted_bug_is_found(monkeypatch: pytest.MonkeyPatch, prefix_sync: PrefixSync) -> None:
    """A node that makes room and tells nobody."""
    evict_here = TenantCache.evict_here

    def silently(self: Any, tenant: str, *, floor: int) -> Any:
        evict_here(self, tenant, floor=floor)
        return type(self)()

    monkeypatch.setattr(TenantCache, "evict_here", silently)
    failure = simulation_of(0, prefix_sync).run().failure
    assert failure is not None
    assert failure.rule in ("R1", "growth"), failure
