"""What is recorded when, who may be chosen, and what a cached prefix depends on."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.states import StateCluster

from meshlib.errors import InvalidTypeError, InvalidValueError
from meshlib.routing import RouteReason, TreeInsert
from meshlib.routing.prompts import prompt_key
from meshlib.sync import MeshSyncManager

MODEL = "llama-3"
PROMPT = "The quick brown fox jumps over the lazy dog"


@pytest.fixture
def manager(state_cluster: type[StateCluster]) -> MeshSyncManager:
    manager = state_cluster(1).managers[0]
    for name in ("w1", "w2", "w3", "w4"):
        manager.sync_worker_state(name, model_id=MODEL, url=f"http://{name}", health=True, load=0)
    return manager


def set_policy(manager: MeshSyncManager, **config: Any) -> None:
    manager.sync_policy_state(MODEL, policy_type="cache_aware", config=json.dumps(config))


def set_load(manager: MeshSyncManager, name: str, load: float) -> None:
    manager.sync_worker_state(name, model_id=MODEL, url="u", health=True, load=load)


def test_a_shed_request_leaves_no_trace(manager: MeshSyncManager) -> None:
    """It was decided, and never placed."""
    decision = manager.select(MODEL, PROMPT)

    assert decision
    assert manager.get_tree_state(MODEL) is None
    assert manager.route(MODEL, PROMPT, record=False) == decision
    assert manager.get_tree_state(MODEL) is None


def test_what_was_placed_is_known(manager: MeshSyncManager) -> None:
    """As if it had been routed; a second time changes nothing."""
    decision = manager.select(MODEL, PROMPT)
    manager.placed(decision)
    manager.placed(decision)
    tree = manager.get_tree_state(MODEL)

    assert tree is not None
    assert 1 == tree.version
    assert decision.worker_id == manager.match_tree(MODEL, PROMPT).tenant


def test_what_was_evicted_meanwhile_is_placed_all_the_same(manager: MeshSyncManager) -> None:
    """A decision does not remember for the tree."""
    manager.route(MODEL, PROMPT)
    decision = manager.select(MODEL, PROMPT)
    assert decision.worker_id is not None
    manager.clear_worker(decision.worker_id)
    manager.placed(decision)

    assert decision.worker_id == manager.match_tree(MODEL, PROMPT).tenant


def test_nobody_holds_what_nobody_was_chosen_for(manager: MeshSyncManager) -> None:
    """A decision without a worker is no placement."""
    manager.placed(manager.select(MODEL, PROMPT, candidates=()))

    assert manager.get_tree_state(MODEL) is None


def test_only_a_decision_can_be_placed(manager: MeshSyncManager) -> None:
    """A worker's name is none."""
    with pytest.raises(InvalidTypeError):
        manager.placed("w1")  # type: ignore[arg-type]


def test_a_decision_shows_no_prompt(manager: MeshSyncManager) -> None:
    """It may be in a log."""
    assert "quick" not in repr(manager.select(MODEL, PROMPT))


def test_an_excluded_worker_is_not_chosen(manager: MeshSyncManager) -> None:
    """Though it holds all of the prompt; the next best takes it."""
    manager.sync_tree_operation(MODEL, TreeInsert(PROMPT, "w1"))
    manager.sync_tree_operation(MODEL, TreeInsert(PROMPT[:20], "w2"))
    first = manager.select(MODEL, PROMPT)
    second = manager.select(MODEL, PROMPT, exclude=["w1"])
    all_gone = manager.select(MODEL, PROMPT, exclude=["w1", "w2", "w3", "w4", "unknown"])

    assert ("w1", "w2", None) == (first.worker_id, second.worker_id, all_gone.worker_id)
    assert RouteReason.NO_WORKER is all_gone.reason


def test_only_candidates_are_chosen(manager: MeshSyncManager) -> None:
    """Those of them that are healthy workers of the model."""
    chosen = {
        manager.select(MODEL, f"{n} prompt", candidates={"w2", "w3", "elsewhere"}).worker_id
        for n in range(20)
    }

    assert {"w2", "w3"} == chosen


@pytest.mark.parametrize("name", ["exclude", "candidates"])
def test_one_text_is_no_list_of_workers(manager: MeshSyncManager, name: str) -> None:
    """It would be taken for its letters."""
    arguments: dict[str, Any] = {name: "w1"}
    with pytest.raises(InvalidTypeError):
        manager.select(MODEL, PROMPT, **arguments)


def test_prompts_of_different_salts_share_nothing(manager: MeshSyncManager) -> None:
    """An adapter's cache is no other's; a match counts the prompt alone."""
    first = manager.route(MODEL, PROMPT, salt="adapter-1")
    same = manager.route(MODEL, PROMPT, salt="adapter-1")
    other = manager.route(MODEL, PROMPT, salt="adapter-2")
    none = manager.route(MODEL, PROMPT)

    assert (first.worker_id, len(PROMPT)) == (same.worker_id, same.matched)
    assert (0, 0, 0) == (first.matched, other.matched, none.matched)


ODD_TEXTS = [
    "",
    "a",
    "b",
    "\x1f",
    "a\x1fb",
    "b\x1fc",
    "c",
    "1:",
    "1:a",
    "\x1f1:ac",
    "\x1f0:",
    "0:",
    "\u00e9",
]
"""What could be taken for the way in which a salt and a text are joined."""


def test_no_two_pairs_of_salt_and_text_have_one_key() -> None:
    """Whoever chooses a salt or a text can build no other's key."""
    pairs = [(salt, text) for salt in ODD_TEXTS for text in ODD_TEXTS]

    assert len(pairs) == len({prompt_key(text, salt=salt) for salt, text in pairs})
    assert all(prompt_key(text, salt=salt).endswith(text) for salt, text in pairs)


@given(st.text(max_size=6), st.text(max_size=6), st.text(max_size=6), st.text(max_size=6))
def test_drawn_pairs_have_one_key_only_if_they_are_equal(
    salt: str, text: str, other_salt: str, other: str
) -> None:
    """And where the salts differ, no part of a text is shared."""
    one, two = prompt_key(text, salt=salt), prompt_key(other, salt=other_salt)

    assert ((salt, text) == (other_salt, other)) == (one == two)


def test_a_tenant_that_chooses_its_salt_sees_nothing_of_another(manager: MeshSyncManager) -> None:
    """The two were one entry once: salt and text were joined by a character that both may have."""
    manager.route(MODEL, "c" * 100, salt="a\x1fb")
    same_key_once = manager.route(MODEL, "b\x1f" + "c" * 100, salt="a")

    assert (0, RouteReason.NO_MATCH) == (same_key_once.matched, same_key_once.reason)


def test_a_salt_must_be_a_text(manager: MeshSyncManager) -> None:
    """That can be encoded."""
    with pytest.raises(InvalidValueError):
        manager.route(MODEL, PROMPT, salt="\ud800")
    with pytest.raises(InvalidTypeError):
        manager.route(MODEL, PROMPT, salt=7)  # type: ignore[arg-type]
    assert manager.get_tree_state(MODEL) is None


@pytest.mark.parametrize(("min_match", "reason"), [
    (9, RouteReason.PREFIX_MATCH), (10, RouteReason.NO_MATCH), (0, RouteReason.PREFIX_MATCH),
])  # fmt: skip
def test_a_match_must_be_long_enough_in_characters_too(
    manager: MeshSyncManager, min_match: int, reason: RouteReason
) -> None:
    """Nine characters of eleven are cached."""
    set_policy(manager, cache_threshold=0.5, min_match=min_match)
    manager.sync_tree_operation(MODEL, TreeInsert("The quick", "w1"))

    assert reason is manager.select(MODEL, "The quick b").reason


def test_out_of_balance_warm_conversations_stay_with_holders_that_have_room(
    manager: MeshSyncManager,
) -> None:
    """One worker is swamped, another idle: the prompts of the others stay where they are."""
    prompts = {f"{name}: conversation {n}": name for n in range(40) for name in ("w2", "w3")}
    for prompt, name in prompts.items():
        manager.sync_tree_operation(MODEL, TreeInsert(prompt, name))
    for name, load in (("w1", 300.0), ("w2", 20.0), ("w3", 30.0), ("w4", 0.0)):
        set_load(manager, name, load)
    decisions = {prompt: manager.select(MODEL, prompt) for prompt in prompts}

    assert {RouteReason.IMBALANCE} == {one.reason for one in decisions.values()}
    assert prompts == {prompt: one.worker_id for prompt, one in decisions.items()}


def test_out_of_balance_the_swamped_worker_gets_nothing(manager: MeshSyncManager) -> None:
    """What it alone holds goes to the least loaded."""
    manager.sync_tree_operation(MODEL, TreeInsert(PROMPT, "w1"))
    for name, load in (("w1", 300.0), ("w2", 20.0), ("w3", 30.0), ("w4", 1.0)):
        set_load(manager, name, load)

    assert "w4" == manager.select(MODEL, PROMPT).worker_id


def test_to_the_letter_imbalance_goes_to_the_least_loaded(manager: MeshSyncManager) -> None:
    """`compat: specification` has every prompt go there."""
    set_policy(manager, compat="specification")
    manager.sync_tree_operation(MODEL, TreeInsert(PROMPT, "w2"))
    for name, load in (("w1", 300.0), ("w2", 20.0), ("w3", 30.0), ("w4", 1.0)):
        set_load(manager, name, load)

    assert "w4" == manager.select(MODEL, PROMPT).worker_id


def test_to_the_letter_what_nobody_holds_goes_to_the_smallest_tree(
    manager: MeshSyncManager,
) -> None:
    """The worker with the fewest texts; the first by name among equals."""
    set_policy(manager, compat="specification", cache_threshold=0.7)
    chosen = [manager.route(MODEL, f"{n}{'x' * n} is new").worker_id for n in range(8)]

    assert ["w1", "w2", "w3", "w4"] * 2 == chosen
    assert {2} == set(Counter(chosen).values())
