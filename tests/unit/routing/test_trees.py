"""Routing trees: operations, versions, sizes, and what happens on two nodes at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.states import StateCluster

from meshlib.errors import DocumentTypeError, InvalidTypeError, InvalidValueError, LimitError
from meshlib.routing import TreeOperation
from meshlib.routing.records import TreeInsert, TreeMatch, TreeRemove, TreeState
from meshlib.sync import MeshSyncManager

MODEL = "llama-3"


def tree_of(manager: MeshSyncManager) -> Any:
    return manager.get_tree_state(MODEL)


def insert(manager: MeshSyncManager, text: str, tenant: str = "w1") -> Any:
    return manager.sync_tree_operation(MODEL, TreeInsert(text, tenant))


def shrink(manager: MeshSyncManager, size: int) -> None:
    config = f'{{"max_tree_size": {size}}}'
    manager.sync_policy_state(MODEL, policy_type="cache_aware", config=config)


def test_an_insertion_is_matched_on_the_other_node(state_cluster: type[StateCluster]) -> None:
    """By a text that begins with it, and by its own beginning."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    insert(here, "Hello world")
    cluster.exchange()

    assert TreeMatch(tenants=("w1",), matched=5, input_length=5) == there.match_tree(MODEL, "Hello")
    longer = there.match_tree(MODEL, "Hello world, again")
    assert ("w1", 11, 18) == (longer.tenant, longer.matched, longer.input_length)


def test_the_operations_are_those_of_the_specification(state_cluster: type[StateCluster]) -> None:
    """Its timeline: two nodes place, the third has both."""
    cluster = state_cluster(3)
    insert(cluster.managers[0], "Hello world", "worker1")
    cluster.exchange()
    insert(cluster.managers[2], "Help", "worker2")
    cluster.exchange()
    expected = TreeState(
        model_id=MODEL,
        operations=(TreeInsert("Hello world", "worker1"), TreeInsert("Help", "worker2")),
        version=2,
    )

    assert [expected] * 3 == [tree_of(manager) for manager in cluster.managers]


def test_concurrent_insertions_are_both_kept_and_counted(state_cluster: type[StateCluster]) -> None:
    """There is no list in which one could overwrite the other."""
    cluster = state_cluster(2)
    insert(cluster.managers[0], "left", "w1")
    insert(cluster.managers[1], "right", "w2")
    cluster.exchange()

    assert tree_of(cluster.managers[0]) == tree_of(cluster.managers[1])
    assert 2 == tree_of(cluster.managers[0]).version
    assert 2 == len(tree_of(cluster.managers[0]).operations)


def test_a_removal_takes_all_of_a_tenant(state_cluster: type[StateCluster]) -> None:
    """Everywhere, and counts as one operation."""
    cluster = state_cluster(2)
    for text in ("a", "b", "c"):
        insert(cluster.managers[0], text)
    insert(cluster.managers[0], "d", "w2")
    cluster.exchange()
    cluster.managers[1].sync_tree_operation(MODEL, TreeRemove("w1"))
    cluster.exchange()

    assert TreeState(model_id=MODEL, operations=(TreeInsert("d", "w2"),), version=5) == tree_of(
        cluster.managers[0]
    )


def test_what_changes_nothing_is_not_counted(state_cluster: type[StateCluster]) -> None:
    """Inserting again what is there, and removing who has nothing."""
    manager = state_cluster(1).managers[0]
    insert(manager, "Hello")
    insert(manager, "Hello")
    manager.sync_tree_operation(MODEL, TreeRemove("w9"))
    manager.sync_tree_operation("no such model", TreeRemove("w9"))

    assert 1 == tree_of(manager).version
    assert manager.get_tree_state("no such model") is None


def test_removing_who_has_nothing_here_beats_its_first_text_elsewhere(
    state_cluster: type[StateCluster],
) -> None:
    """Also where the remover has never heard of a tree of the model."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    insert(there, "Hello")
    here.sync_tree_operation(MODEL, TreeRemove("w1"))
    cluster.exchange()

    assert [0, 0] == [manager.trees.entry_count(MODEL) for manager in (here, there)]


def test_a_removal_that_finds_no_room_for_a_tree_changes_nothing(
    state_cluster: type[StateCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker can be removed all the same: where no tree can be, it is in none."""
    manager = state_cluster(1).managers[0]
    manager.sync_worker_state("w1", model_id=MODEL, url="u", health=True, load=0)
    monkeypatch.setattr("meshlib.routing.trees.DOCUMENTS_MAX", 1)
    manager.remove_worker_state("w1")

    assert [[], []] == [manager.get_all_worker_states(), manager.trees.models()]


def test_a_tenant_can_come_back_after_its_removal(state_cluster: type[StateCluster]) -> None:
    """A later insertion is of its new life."""
    cluster = state_cluster(2)
    insert(cluster.managers[0], "Hello")
    cluster.exchange()
    cluster.managers[0].sync_tree_operation(MODEL, TreeRemove("w1"))
    cluster.exchange()
    insert(cluster.managers[1], "Hello")
    cluster.exchange()

    assert "w1" == cluster.managers[0].match_tree(MODEL, "Hello").tenant


def test_an_insertion_again_makes_a_text_young(state_cluster: type[StateCluster]) -> None:
    """So it stays when room is made."""
    manager = state_cluster(1).managers[0]
    shrink(manager, 12)
    for text in ("aaaa", "bbbb", "cccc", "aaaa"):
        insert(manager, text)
    insert(manager, "dddd")

    assert ["cccc", "aaaa", "dddd"] == [op.text for op in tree_of(manager).operations]


def test_a_tree_never_holds_more_than_its_policy_allows(state_cluster: type[StateCluster]) -> None:
    """The least recently used goes, whoever has it, and on all nodes."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    shrink(here, 100)
    for number in range(50):
        insert(here, f"{number:02} some text", f"w{number % 3}")
        assert here.trees.characters(MODEL) <= 100
    cluster.exchange()

    assert tree_of(here) == tree_of(there)
    assert "49 some text" == tree_of(there).operations[-1].text
    assert 50 == tree_of(there).version


def test_what_goes_first_is_the_oldest_of_all_tenants(state_cluster: type[StateCluster]) -> None:
    """And not the oldest of the one that is given something."""
    manager = state_cluster(1).managers[0]
    shrink(manager, 16)
    for text, tenant in (("aaaa", "w1"), ("bbbb", "w2"), ("cccc", "w1"), ("dddd", "w2")):
        insert(manager, text, tenant)
    insert(manager, "eeee", "w3")

    assert ["bbbb", "cccc", "dddd", "eeee"] == [op.text for op in tree_of(manager).operations]


def test_a_node_whose_clock_is_behind_can_still_insert(state_cluster: type[StateCluster]) -> None:
    """Though what was evicted is younger by the clock of the one that evicted it."""
    cluster = state_cluster(2)
    here, there = cluster.managers
    shrink(there, 4)
    cluster.exchange()
    cluster.time.now = 100.0
    for text in ("aaaa", "bbbb"):
        insert(here, text)
    cluster.exchange()
    cluster.set_clock(1, behind_s=50.0)
    insert(there, "cccc")
    cluster.exchange()

    assert 4 == here.match_tree(MODEL, "cccc").matched


def test_a_size_that_is_lowered_holds_at_the_next_insertion(
    state_cluster: type[StateCluster],
) -> None:
    """All at once, the youngest stay."""
    manager = state_cluster(1).managers[0]
    for number in range(200):
        insert(manager, f"{number:03} some text", f"w{number % 3}")
    shrink(manager, 100)
    insert(manager, "the last one")

    assert manager.trees.characters(MODEL) <= 100
    assert "the last one" == tree_of(manager).operations[-1].text
    assert "199 some text" == tree_of(manager).operations[-2].text


def test_shared_beginnings_count_once(state_cluster: type[StateCluster]) -> None:
    """So nothing has to go for a text that is mostly there."""
    manager = state_cluster(1).managers[0]
    shrink(manager, 24)
    insert(manager, "x" * 20)
    for number in range(4):
        insert(manager, "x" * 20 + str(number))

    assert 5 == len(tree_of(manager).operations)


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (TreeInsert("", "w1"), InvalidValueError),
        (TreeInsert("text", ""), InvalidValueError),
        (TreeInsert("\ud800", "w1"), InvalidValueError),
        (TreeInsert(b"text", "w1"), InvalidTypeError),  # type: ignore[arg-type]
        (TreeInsert("text", 7), InvalidTypeError),  # type: ignore[arg-type]
        (TreeInsert("x" * 262_145, "w1"), LimitError),
        (TreeInsert("😀" * 200_000, "w1"), LimitError),
        (TreeInsert("text", "w" * 1025), LimitError),
        (TreeRemove(""), InvalidValueError),
        ("insert", InvalidTypeError),
    ],
)
def test_a_bad_operation_is_refused_and_changes_nothing(
    state_cluster: type[StateCluster], operation: Any, error: type[Exception]
) -> None:
    """No version, no eviction, nothing to send."""
    cluster = state_cluster(1)
    manager = cluster.managers[0]
    insert(manager, "Hello")
    before = tree_of(manager)
    with pytest.raises(error):
        manager.sync_tree_operation(MODEL, operation)
    assert before == tree_of(manager)


def test_of_several_operations_all_are_applied_or_none(state_cluster: type[StateCluster]) -> None:
    """One that cannot be holds up those before it."""
    manager = state_cluster(1).managers[0]
    good: list[TreeOperation] = [
        TreeInsert("Hello", "w1"),
        TreeInsert("Help", "w2"),
        TreeRemove("w1"),
    ]
    with pytest.raises(InvalidValueError):
        manager.sync_tree_operations(MODEL, [*good, TreeInsert("", "w1")])
    before = tree_of(manager)
    manager.sync_tree_operations(MODEL, good)

    assert before is None
    assert (TreeInsert("Help", "w2"),) == tree_of(manager).operations


def test_many_operations_are_applied_a_few_at_a_time(state_cluster: type[StateCluster]) -> None:
    """With the same outcome; long texts come fewer at a time."""
    sliced, whole = state_cluster(2).managers
    many: list[TreeOperation] = [TreeInsert("a turn of it. " * n, "w") for n in range(1, 301)]
    many += [TreeInsert(f"{n:05}" * 4000, "w") for n in range(10)]
    slices = list(sliced.sync_tree_slices(MODEL, many))
    whole.sync_tree_operations(MODEL, many)

    assert tree_of(sliced).operations == tree_of(whole).operations
    assert sum(map(len, slices)) == len(many)
    assert max(map(len, slices)) == 64
    assert len(slices[-1]) <= 4


def test_operations_in_slices_are_all_checked_first(state_cluster: type[StateCluster]) -> None:
    """The last one that cannot be holds up the first."""
    manager = state_cluster(1).managers[0]
    many: list[TreeOperation] = [TreeInsert(f"{n}", "w") for n in range(200)]
    with pytest.raises(InvalidValueError):
        manager.sync_tree_slices(MODEL, [*many, TreeInsert("", "w")])

    assert tree_of(manager) is None


@pytest.mark.parametrize("model_id", ["line\nfeed", "100%", "a/b/ü/😀", "%0A", "tree:x"])
def test_a_model_may_have_any_name(state_cluster: type[StateCluster], model_id: str) -> None:
    """Though names of documents hold no control characters."""
    cluster = state_cluster(2)
    subscription = cluster.managers[1].subscribe()
    cluster.managers[0].sync_tree_operation(model_id, TreeInsert("Hello", "w1"))
    cluster.exchange()

    assert 5 == cluster.managers[1].match_tree(model_id, "Hello").matched
    assert [model_id] == cluster.managers[1].trees.models()
    assert [model_id] == [change.key for change in subscription.take()]


def test_a_text_larger_than_the_tree_is_refused_and_evicts_nothing(
    state_cluster: type[StateCluster],
) -> None:
    """It could not stay, so it must not push out what can."""
    manager = state_cluster(1).managers[0]
    shrink(manager, 10)
    insert(manager, "Hello")
    with pytest.raises(LimitError):
        insert(manager, "x" * 11)
    assert 1 == len(tree_of(manager).operations)


def test_a_document_of_another_type_is_no_tree(state_cluster: type[StateCluster]) -> None:
    """A peer may have made one under that name."""
    cluster = state_cluster(1)
    cluster.replicas[0].open(f"tree:{MODEL}", type_tag="g_counter")
    manager = cluster.managers[0]

    assert 0 == manager.match_tree(MODEL, "Hello").matched
    assert manager.get_tree_state(MODEL) is None
    assert (f"the tree store holds {MODEL!r}, which cannot be read",) == manager.problems()
    with pytest.raises(DocumentTypeError):
        insert(manager, "Hello")


def test_a_route_does_not_fail_for_a_tree_that_cannot_be_read(
    state_cluster: type[StateCluster],
) -> None:
    """The placement is not recorded, and that is all."""
    cluster = state_cluster(1)
    cluster.replicas[0].open(f"tree:{MODEL}", type_tag="g_counter")
    manager = cluster.managers[0]
    manager.sync_worker_state("w1", model_id=MODEL, url="http://w1", health=True, load=0.0)

    assert "w1" == manager.route(MODEL, "Hello").worker_id


@pytest.mark.parametrize("limit", ["TENANTS_MAX", "DOCUMENTS_MAX"])
def test_operations_that_find_no_room_together_are_all_refused(
    state_cluster: type[StateCluster], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """One would have found it: neither is applied, and nothing was evicted or made."""
    cluster = state_cluster(1)
    manager, replica = cluster.managers[0], cluster.replicas[0]
    insert(manager, "Hello", "w1")
    before, names = tree_of(manager), replica.documents()
    most = {"TENANTS_MAX": 2, "DOCUMENTS_MAX": len(names)}[limit]
    monkeypatch.setattr(f"meshlib.routing.trees.{limit}", most)
    model = MODEL if limit == "TENANTS_MAX" else "another"
    with pytest.raises(LimitError):
        manager.sync_tree_operations(model, [TreeInsert("a", "w2"), TreeInsert("b", "w3")])

    assert (before, names) == (tree_of(manager), replica.documents())
    insert(manager, "again", "w2")


def test_a_long_prompt_is_recorded_by_its_beginning(state_cluster: type[StateCluster]) -> None:
    """As many characters as a text may have, and bytes as an entry may have."""
    manager = state_cluster(1).managers[0]
    manager.sync_worker_state("w1", model_id=MODEL, url="u", health=True, load=0)
    manager.route(MODEL, "y" * 300_000)
    manager.route(MODEL, "😀" * 300_000)
    texts = [operation.text for operation in tree_of(manager).operations]

    assert 262_144 == len(texts[0])
    assert 500_000 < len(texts[1].encode()) < 524_288


def test_what_is_used_often_is_recorded_seldom(state_cluster: type[StateCluster]) -> None:
    """Once in the interval, and as no new operation."""
    cluster = state_cluster(1)
    manager, replica = cluster.managers[0], cluster.replicas[0]
    manager.sync_worker_state("w1", model_id=MODEL, url="u", health=True, load=0)
    manager.route(MODEL, "Hello")
    replica.flush()
    written = []
    for _ in range(100):
        cluster.time.now += 1.0
        manager.route(MODEL, "Hello")
        written += replica.flush()

    assert 1 == len(written)
    assert 1 == tree_of(manager).version


texts = st.text("ab", min_size=1, max_size=6)
operations = st.one_of(
    st.builds(TreeInsert, texts, st.sampled_from(["w1", "w2"])),
    st.builds(TreeRemove, st.sampled_from(["w1", "w2"])),
)


@settings(max_examples=60, deadline=None)
@given(plan=st.lists(st.tuples(st.integers(0, 2), st.none() | operations), max_size=25))
def test_all_nodes_end_with_one_tree(state_cluster: type[StateCluster], plan: list[Any]) -> None:
    """Whoever did what when, and whenever they heard of each other."""
    cluster = state_cluster(3)
    for node, operation in plan:
        if operation is None:
            cluster.exchange()
        else:
            cluster.time.now += 0.001
            cluster.managers[node].sync_tree_operation(MODEL, operation)
    cluster.exchange()
    states = [tree_of(manager) for manager in cluster.managers]

    assert states[0] == states[1] == states[2]


@settings(max_examples=60, deadline=None)
@given(plan=st.lists(operations, max_size=25))
def test_applying_the_operations_makes_the_tree_again(
    state_cluster: type[StateCluster], plan: list[Any]
) -> None:
    """As the specification restores a node."""
    cluster = state_cluster(1)
    manager = cluster.managers[0]
    for operation in plan:
        cluster.time.now += 0.001
        manager.sync_tree_operation(MODEL, operation)
    state = tree_of(manager)
    again = state_cluster(1)
    for operation in () if state is None else state.operations:
        again.time.now += 0.001
        again.managers[0].sync_tree_operation(MODEL, operation)
    restored = tree_of(again.managers[0])
    expected = () if state is None else state.operations

    assert expected == (() if restored is None else restored.operations)


def test_slices_are_the_operations_in_their_order(state_cluster: type[StateCluster]) -> None:
    """However many tenants there are, and however long the texts are."""
    manager = state_cluster(1).managers[0]
    for number in range(700):
        insert(manager, f"{number % 7}-{number}" + "x" * (number * 3), tenant=f"w{number % 5}")
    state = manager.get_tree_state(MODEL)
    assert state is not None

    slices = list(manager.tree_slices(MODEL))

    assert list(state.operations) == [operation for part in slices for operation in part]
    assert max(len(part) for part in slices) <= 256
    assert max(sum(len(each.text) for each in part[:-1]) for part in slices) < 64 * 1024
    assert state.version == manager.get_tree_version(MODEL)


def test_a_tree_may_change_while_it_is_listed(state_cluster: type[StateCluster]) -> None:
    """A tenant that goes, one that comes, and the whole tree."""
    manager = state_cluster(1).managers[0]
    for number in range(300):
        insert(manager, f"text {number}", tenant=f"w{number % 3}")
    slices = manager.tree_slices(MODEL)
    assert () == next(slices)

    manager.sync_tree_operation(MODEL, TreeRemove("w1"))
    insert(manager, "another", tenant="w9")
    listed = [operation for part in slices for operation in part]

    assert {"w0", "w2"} == {operation.tenant for operation in listed}
    assert [] == [operation for part in manager.tree_slices("none") for operation in part]
    assert manager.get_tree_version("none") is None
