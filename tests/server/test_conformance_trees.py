"""`/mesh/trees`: tree operations on one node, matched on every other."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from support.servers import Eventually, Node

from meshlib.limits import TREE_OPERATIONS_MAX


def insert(text: str, tenant: str) -> dict[str, Any]:
    """Write an insert operation."""
    return {"insert": {"text": text, "tenant": tenant}}


def remove(tenant: str) -> dict[str, Any]:
    """Write a remove operation."""
    return {"remove": {"tenant": tenant}}


def apply(node: Node, model: str, *operations: dict[str, Any]) -> Any:
    """Send operations for a model."""
    return node.request("POST", f"/mesh/trees/{model}/operations", {"operations": operations})


def match(node: Node, model: str, text: str) -> Any:
    """Ask for the longest match of a text."""
    return node.request("POST", f"/mesh/trees/{model}/match", {"text": text})


def test_operations_are_answered_with_how_many_were_applied(node: Node, name: str) -> None:
    """And the model."""
    answer = apply(node, name, insert("Hello", "w1"), insert("Help", "w2"))

    assert {"status": "updated", "model_id": name, "applied": 2} == answer


def test_a_tree_is_what_its_operations_make(node: Node, name: str) -> None:
    """Model, operations and version, as the specification's `TreeState` has them."""
    apply(node, name, insert("Hello", "w1"), insert("Help", "w2"), insert("World", "w1"))

    tree = node.get(f"/mesh/trees/{name}")

    assert ["model_id", "operations", "version"] == list(tree)
    assert (name, 3) == (tree["model_id"], tree["version"])
    expected = [insert("Hello", "w1"), insert("Help", "w2"), insert("World", "w1")]
    assert sorted(map(str, expected)) == sorted(map(str, tree["operations"]))


def test_a_tree_that_nobody_made_is_404(node: Node, name: str) -> None:
    """With an error that names it."""
    assert name in node.get(f"/mesh/trees/{name}", status=404)["error"]


def test_the_longest_prefix_is_matched(node: Node, name: str) -> None:
    """The specification's own tree: `Hello world` finds `Hello` on worker1."""
    apply(node, name, insert("Hello", "worker1"), insert("Help", "worker2"))

    assert {"tenant": "worker1", "matched": 5, "input_length": 11} == match(
        node, name, "Hello world"
    )
    assert {"tenant": "worker2", "matched": 4, "input_length": 4} == match(node, name, "Help")


def test_part_of_what_is_cached_is_matched_too(node: Node, name: str) -> None:
    """`Hello` finds the first five characters of `Hello world`."""
    apply(node, name, insert("Hello world", "worker1"))

    assert {"tenant": "worker1", "matched": 5, "input_length": 5} == match(node, name, "Hello")


def test_nothing_matched_is_no_tenant(node: Node, name: str) -> None:
    """In an empty tree, and for a text that shares no prefix."""
    nothing = {"tenant": None, "matched": 0, "input_length": 3}

    assert nothing == match(node, name, "abc")
    apply(node, name, insert("xyz", "w1"))
    assert nothing == match(node, name, "abc")


def test_lengths_are_in_characters(node: Node, name: str) -> None:
    """Not in bytes."""
    apply(node, name, insert("naïve 日本", "w1"))

    assert {"tenant": "w1", "matched": 8, "input_length": 9} == match(node, name, "naïve 日本🦊")


def test_an_operation_on_one_node_is_matched_on_every_other(
    cluster: list[Node], eventually: Eventually, name: str
) -> None:
    """The tree is global."""
    apply(cluster[0], name, insert("The quick brown fox", "worker1"))

    for node in cluster:
        eventually(
            partial(
                lambda n: (
                    match(n, name, "The quick brown")
                    == {"tenant": "worker1", "matched": 15, "input_length": 15}
                ),
                node,
            ),
            "it is matched",
        )


def test_the_version_of_a_tree_is_the_same_on_every_node(
    cluster: list[Node], eventually: Eventually, name: str
) -> None:
    """Whichever nodes the operations came to."""
    for number, node in enumerate(cluster):
        apply(node, name, insert(f"text {number}", "w1"))

    for node in cluster:
        eventually(
            partial(
                lambda n: (n.client.get(f"/mesh/trees/{name}").json()).get("version") == 3, node
            ),
            "all three are counted",
        )


def test_removing_a_tenant_takes_all_it_had(
    cluster: list[Node], eventually: Eventually, name: str
) -> None:
    """On every node, with one operation, and nothing of anybody else."""
    apply(cluster[0], name, insert("Hello", "w1"), insert("World", "w1"), insert("Help", "w2"))
    eventually(lambda: match(cluster[1], name, "Hello")["matched"] == 5, "it is known")

    apply(cluster[1], name, remove("w1"))

    for node in cluster:
        eventually(
            partial(lambda n: match(n, name, "World")["tenant"] is None, node), "it is removed"
        )
        assert {"tenant": "w2", "matched": 3, "input_length": 5} == match(node, name, "Hello")


def test_a_tenant_may_come_back_after_its_removal(node: Node, name: str) -> None:
    """What is inserted later stays."""
    apply(node, name, insert("Hello", "w1"), remove("w1"), insert("Help", "w1"))

    assert {"tenant": "w1", "matched": 3, "input_length": 5} == match(node, name, "Hello")


def test_trees_of_other_models_are_others(node: Node, name: str) -> None:
    """Nothing is shared between models."""
    apply(node, f"{name}-a", insert("Hello", "w1"))

    assert match(node, f"{name}-b", "Hello")["tenant"] is None


def test_a_model_id_may_hold_slashes_and_words_of_the_path(node: Node, name: str) -> None:
    """Encoded, a slash belongs to the id, whatever follows it."""
    model = f"{name}%2Foperations"

    apply(node, model, insert("Hello", "w1"))

    assert f"{name}/operations" == node.get(f"/mesh/trees/{model}")["model_id"]
    assert "w1" == match(node, model, "Hello")["tenant"]


def test_no_operations_change_nothing(node: Node, name: str) -> None:
    """An empty list is a list."""
    assert 0 == apply(node, name)["applied"]


@pytest.mark.parametrize(
    ("operation", "named"),
    [
        ({}, "either `insert` or `remove`"),
        ({"insert": {"text": "a", "tenant": "w"}, "remove": {"tenant": "w"}}, "either"),
        ({"insert": {"text": "a"}}, "operations[1].insert.tenant: missing"),
        ({"insert": {"tenant": "w"}}, "operations[1].insert.text: missing"),
        ({"insert": {"text": 1, "tenant": "w"}}, "operations[1].insert.text: expected text"),
        ({"insert": {"text": "a", "tenant": "w", "at": 1}}, "operations[1].insert.at: unknown"),
        ({"insert": {"text": "", "tenant": "w"}}, "text"),
        ({"insert": {"text": "a", "tenant": ""}}, "tenant"),
        ({"insert": {"text": "a", "tenant": "w" * 1025}}, "tenant"),
        ({"insert": {"text": "a" * 262_145, "tenant": "w"}}, "text"),
        ({"remove": {}}, "operations[1].remove.tenant: missing"),
        ({"remove": "w"}, "operations[1].remove: expected an object"),
        ({"evict": {"tenant": "w"}}, "operations[1].evict: unknown key"),
        ("insert", "operations[1]: expected an object"),
    ],
)
def test_one_wrong_operation_is_400_and_none_is_applied(
    node: Node, name: str, operation: Any, named: str
) -> None:
    """All of a request, or nothing of it."""
    body = {"operations": [insert("Hello", "w1"), operation]}

    error = node.request("POST", f"/mesh/trees/{name}/operations", body, status=400)

    assert named in error["error"]
    node.get(f"/mesh/trees/{name}", status=404)


def test_as_many_operations_as_may_be_are_applied_at_once(node: Node, name: str) -> None:
    """The limit itself is within the limit."""
    operations = [insert(f"text {number}", "w1") for number in range(TREE_OPERATIONS_MAX)]

    assert TREE_OPERATIONS_MAX == apply(node, name, *operations)["applied"]


def test_too_many_operations_at_once_are_400_and_none_is_applied(node: Node, name: str) -> None:
    """The error names the limit; a node that applied them all would be silent for seconds."""
    operation = insert("a", "w1")
    body = {"operations": [operation] * (TREE_OPERATIONS_MAX + 1)}

    error = node.request("POST", f"/mesh/trees/{name}/operations", body, status=400)

    assert "operations: at most 1,024 at once, got 1,025" == error["error"]
    node.get(f"/mesh/trees/{name}", status=404)


@pytest.mark.parametrize("body", [{}, {"text": 1}, {"text": "a", "more": 1}, []])
def test_a_match_without_a_text_is_400(node: Node, name: str, body: Any) -> None:
    """Missing and unknown fields, and wrong types."""
    node.request("POST", f"/mesh/trees/{name}/match", body, status=400)


@pytest.mark.parametrize("path", ["operations", "match"])
def test_an_empty_model_id_is_400(node: Node, path: str) -> None:
    """It names no model."""
    body: dict[str, Any] = {"operations": []} if path == "operations" else {"text": "a"}

    node.request("POST", f"/mesh/trees//{path}", body, status=400)
