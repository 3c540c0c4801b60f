"""What must hold of trees, counters and sets: they only grow, and hold what somebody wrote.

Such a document has no tombstones that are forgotten: whatever a node has seen of it stays part of
its state. So each state is at least every earlier one, in the order of the lattice: a removed
element or tenant that came back by itself, or a count that went down, is not.
"""

from __future__ import annotations

from typing import Any

from meshlib.identity import ActorId
from meshlib.routing import TREE_PREFIX
from meshlib.state import DEFAULTS_DOCUMENT
from meshlib.testing.checkers.other_writes import MODELS, TAGS, VISITS, OtherWrites, Vectors
from meshlib.testing.checkers.watch import MAP_DOCUMENTS, Broken
from meshlib.testing.world.hosts import Host

__all__ = ["DocumentWatch", "look_at_removed_workers", "look_at_what_survived"]


class DocumentWatch:
    """Watches the other documents of one process.

    Args:
        host: where it runs.
        writes: what was written to them, anywhere.
    """

    def __init__(self, host: Host, writes: OtherWrites) -> None:
        self._host = host
        self._writes = writes
        self._actor: ActorId = host.node.replica.actor
        self._before: dict[str, Any] = {}
        self._looks = 0

    def look(self, *, only_one: bool = False) -> None:
        """Compare documents with what they were. O(their size).

        Args:
            only_one: one document after another, and not all of them.

        Raises:
            Broken: one shrank, or holds what nobody wrote.
        """
        replica = self._host.node.replica
        if replica.is_rejoining or replica.actor != self._actor:
            self._actor = replica.actor
            self._before = {}  # it adopts what a peer has
        maps = (*MAP_DOCUMENTS, DEFAULTS_DOCUMENT)  # of these, tombstones are forgotten
        documents = [name for name in replica.documents() if name not in maps]
        if replica.is_rejoining or not documents:
            return
        self._looks += 1
        for document in [documents[self._looks % len(documents)]] if only_one else documents:
            state = replica.get(document)
            before = self._before.get(document)
            if before is not None and not before <= state:
                raise Broken("growth", f"{document} is no longer at least what it was")
            copy = getattr(state, "copy", None)
            self._before[document] = state if copy is None else copy()
            self._look_for_what_nobody_wrote(document, state)

    def _look_for_what_nobody_wrote(self, document: str, state: Any) -> None:
        writes = self._writes
        if document == VISITS:
            if state.value > writes.increment_count:
                raise Broken("made up", f"{state.value} visits are counted")
        elif document == TAGS:
            for element in state:
                if not writes.knows_element(element):
                    raise Broken("made up", f"{element!r} is tagged by nobody")
        else:
            tree = self._host.node.sync.get_tree_state(document.removeprefix(TREE_PREFIX))
            for operation in tree.operations if tree is not None else ():
                text, tenant = operation.text, operation.tenant
                if not writes.knows_text(document, tenant, text):
                    raise Broken("made up", f"{tenant} has {text!r} in {document}")


def look_at_what_survived(
    host: Host, writes: OtherWrites, vectors: Vectors, *, has_rejoined: bool
) -> None:
    """Look whether what surviving nodes held when the calm began is there, once all agree.

    Args:
        host: any of them.
        writes: what was written.
        vectors: what each of them held.
        has_rejoined: whether a node made old writes again under new numbers: then an addition
            may be there beside the one that was removed.

    Raises:
        Broken: something is missing, or is there although it was removed.
    """
    replica = host.node.replica
    documents = replica.documents()
    counted = replica.get(VISITS).value if VISITS in documents else 0
    if counted < (held := writes.increments_held(vectors, VISITS)):
        raise Broken("lost write", f"{counted} visits are counted, {held} were acknowledged")
    tags = set(replica.get(TAGS)) if TAGS in documents else set()
    if lost := writes.elements_held(vectors, TAGS) - tags:
        raise Broken("lost write", f"the tags {sorted(lost)} were acknowledged and are gone")
    if not has_rejoined and (back := writes.elements_gone(vectors) & tags):
        raise Broken("growth", f"the tags {sorted(back)} were removed and are there")
    cached: dict[tuple[str, str], list[str]] = {}
    for model in MODELS:
        state = host.node.sync.get_tree_state(model)
        for operation in state.operations if state is not None else ():
            cached.setdefault((TREE_PREFIX + model, operation.tenant), []).append(operation.text)
    for document, tenant, text in writes.texts_held(vectors):
        # A longer text has its beginning cached too, and stands for it.
        if not any(other.startswith(text) for other in cached.get((document, tenant), ())):
            raise Broken(
                "lost write", f"{document}/{tenant}: {text!r} was acknowledged and is gone"
            )


def look_at_removed_workers(host: Host, writes: OtherWrites) -> int:
    """Look whether a worker that is gone, or serves another model now, is in no tree.

    Once all agree: until then a node that has not heard of the removal places prompts with it,
    and may be killed before it hears. What was cached for a tenant that the writer did not hold for
    a worker of the model is another matter, and stays.

    Args:
        host: any node.
        writes: what was written.

    Returns:
        how many workers had texts once and have none.

    Raises:
        Broken: a worker has kept a text where it is no worker.
    """
    left = {
        (document, tenant)
        for document, tenant, _ in writes.texts()
        if _is_gone(host, document, tenant)
    }
    kept: set[tuple[str, str]] = set()
    for model in MODELS:
        document = TREE_PREFIX + model
        state = host.node.sync.get_tree_state(model)
        for operation in state.operations if state is not None else ():
            tenant, text = operation.tenant, operation.text
            kept.add((document, tenant))
            if not _is_gone(host, document, tenant):
                continue
            if writes.goes_with_worker(document, tenant, text):
                raise Broken("removed worker", f"{tenant} is none of {model}, and has {text!r}")
    return len(left - kept)


def _is_gone(host: Host, document: str, tenant: str) -> bool:
    worker = host.node.sync.get_worker_state(tenant)
    return worker is None or TREE_PREFIX + worker.model_id != document
