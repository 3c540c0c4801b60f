"""What is known better than by the tree: a worker's own word of what it has cached."""

from __future__ import annotations

from typing import Any

import pytest
from support.states import StateCluster

from meshlib.errors import InvalidTypeError, InvalidValueError
from meshlib.routing.records import RouteReason, TreeInsert
from meshlib.sync import MeshSyncManager

MODEL = "llama-3"
PROMPT = "The quick brown fox jumps over the lazy dog. " * 20


@pytest.fixture(params=["cache_aware", "expected_time"])
def manager(request: pytest.FixtureRequest, state_cluster: type[StateCluster]) -> MeshSyncManager:
    """Return one node's manager with two workers, of which the tree says that w1 has the prompt."""
    manager = state_cluster(1).managers[0]
    manager.sync_policy_state(MODEL, policy_type=request.param, config="{}")
    for name in ("w1", "w2"):
        manager.sync_worker_state(name, model_id=MODEL, url=f"http://{name}", health=True, load=0.0)
    manager.sync_tree_operation(MODEL, TreeInsert(PROMPT, "w1"))
    return manager


def test_what_a_worker_has_evicted_is_not_warm_whatever_the_tree_says(
    manager: MeshSyncManager,
) -> None:
    """Nobody has it then, and nothing of it counts as cached."""
    assert ("w1", len(PROMPT)) == _where(manager)

    decision = manager.select(MODEL, PROMPT, held={"w1": 0})

    assert (0, RouteReason.NO_MATCH) == (decision.matched, decision.reason)


def test_what_a_worker_has_stored_is_warm_though_the_tree_does_not_know(
    manager: MeshSyncManager,
) -> None:
    """It is chosen for it, and so much of it need not be prefilled."""
    told = {"w1": 0, "w2": 600}
    decision = manager.select(MODEL, PROMPT, held=told)

    assert ("w2", 600) == (decision.worker_id, decision.matched)
    assert RouteReason.PREFIX_MATCH is decision.reason
    assert ("w1", len(PROMPT)) == _where(manager)


def test_of_a_worker_that_nobody_speaks_of_the_tree_is_believed(manager: MeshSyncManager) -> None:
    """A fleet may have engines that tell, and others."""
    decision = manager.select(MODEL, PROMPT, held={"w2": 100})

    assert ("w1", len(PROMPT)) == (decision.worker_id, decision.matched)


def test_the_salt_before_a_prompt_is_none_of_what_is_held(manager: MeshSyncManager) -> None:
    """Characters are those of the prompt."""
    decision = manager.select(MODEL, PROMPT, salt="tenant-7", held={"w2": 700})

    assert ("w2", 700) == (decision.worker_id, decision.matched)


def test_a_placement_is_recorded_by_what_the_tree_has(manager: MeshSyncManager) -> None:
    """A word that is wrong now leaves no gap in the tree."""
    decision = manager.route(MODEL, PROMPT, held={"w1": 0, "w2": len(PROMPT)})

    assert "w2" == decision.worker_id
    assert ("w1", "w2") == manager.match_tree(MODEL, PROMPT).tenants


@pytest.mark.parametrize(
    ("held", "error"),
    [
        (["w1"], InvalidTypeError),
        ({1: 1}, InvalidTypeError),
        ({"w1": 1.0}, InvalidTypeError),
        ({"w1": True}, InvalidTypeError),
        ({"w1": -1}, InvalidValueError),
        ({"w1": len(PROMPT) + 1}, InvalidValueError),
    ],
)
def test_what_nobody_can_hold_is_refused(
    manager: MeshSyncManager, held: Any, error: type[Exception]
) -> None:
    """And nothing is chosen or recorded."""
    with pytest.raises(error):
        manager.route(MODEL, PROMPT, held=held)


def _where(manager: MeshSyncManager) -> tuple[str | None, int]:
    decision = manager.select(MODEL, PROMPT)
    return decision.worker_id, decision.matched
