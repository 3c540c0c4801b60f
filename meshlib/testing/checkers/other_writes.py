"""What was written to documents that are not maps of last writers: trees, counters, sets.

Rule: as with the ledger, only the writer tells. What a document may show follows from what was
written anywhere; what it must show in the end follows from what a surviving node holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import evolve, frozen

from meshlib.crdt import CausalContext, Dot
from meshlib.identity import ActorId
from meshlib.replication import WriteReceipt

__all__ = ["MODELS", "TAGS", "VISITS", "OtherWrites", "Vectors"]

TAGS: Final = "tags"
"""The set."""

VISITS: Final = "visits"
"""The counter."""

MODELS: Final = ("llama", "qwen")
"""Those that have a tree."""

Vectors = Sequence[Mapping[ActorId, int]]


@frozen(slots=True)
class _Addition:
    """An element that was added to the set under a dot, in place of earlier additions of it."""

    element: str
    dot: Dot
    seen: CausalContext
    receipt: WriteReceipt


@frozen(slots=True)
class _Removal:
    """Dots that were removed from the set."""

    dots: CausalContext
    receipt: WriteReceipt


class OtherWrites:
    """Every write of a run to the trees, the counter and the set."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, str, str], list[WriteReceipt]] = {}
        self._unplaced: set[tuple[str, str, str]] = set()
        self._removed_tenants: set[tuple[str, str]] = set()
        self._increments: list[WriteReceipt] = []
        self._additions: list[_Addition] = []
        self._removals: list[_Removal] = []
        self._elements: set[str] = set()
        self._pardoned: set[str] = set()

    def note_text(
        self, document: str, tenant: str, text: str, receipt: WriteReceipt, *, is_placed: bool
    ) -> None:
        """Take down that a tenant has a text cached.

        Args:
            document: the tree.
            tenant: whose.
            text: what.
            receipt: of the write.
            is_placed: whether the writer held the tenant for a worker of this model: then the
                text goes with the worker.
        """
        self._texts.setdefault((document, tenant, text), []).append(receipt)
        if not is_placed:
            self._unplaced.add((document, tenant, text))

    def note_passing_text(self, document: str, tenant: str, text: str) -> None:
        """Take down that a tenant may have a text cached, and may lose it to make room."""
        self._texts.setdefault((document, tenant, text), [])
        self._unplaced.add((document, tenant, text))

    def note_tenant_removed(self, document: str, tenant: str) -> None:
        """Take down that a tenant has nothing cached any more."""
        self._removed_tenants.add((document, tenant))

    def note_increment(self, receipt: WriteReceipt) -> None:
        """Take down that the counter was raised by one."""
        self._increments.append(receipt)

    def note_addition(
        self, element: str, dot: Dot, seen: CausalContext, receipt: WriteReceipt
    ) -> None:
        """Take down that an element was added.

        Args:
            element: it.
            dot: of this addition.
            seen: that dot, and those of earlier additions whose place it takes.
            receipt: of the write.
        """
        self._elements.add(element)
        self._additions.append(_Addition(element, dot, seen, receipt))

    def note_removal(self, dots: CausalContext, receipt: WriteReceipt) -> None:
        """Take down which additions were removed."""
        self._removals.append(_Removal(dots, receipt))

    def note_renamed(self, old: ActorId, new: ActorId) -> None:
        """Note that what a writer wrote travels as another one's."""

        def renamed(receipt: WriteReceipt) -> WriteReceipt:
            return evolve(receipt, actor=new) if receipt.actor == old else receipt

        for place, receipts in self._texts.items():
            self._texts[place] = list(map(renamed, receipts))
        self._increments = list(map(renamed, self._increments))
        self._additions = [evolve(a, receipt=renamed(a.receipt)) for a in self._additions]
        self._removals = [evolve(r, receipt=renamed(r.receipt)) for r in self._removals]

    def pardon(self, document: str) -> None:
        """Note that a node reported a write to a document as lost."""
        self._pardoned.add(document)

    @property
    def increment_count(self) -> int:
        """How often the counter was raised."""
        return len(self._increments)

    def knows_text(self, document: str, tenant: str, text: str) -> bool:
        """Tell whether anybody said that a tenant has a text cached."""
        return (document, tenant, text) in self._texts

    def texts(self) -> Iterator[tuple[str, str, str]]:
        """Yield (document, tenant, text) of all that was ever cached."""
        return iter(self._texts)

    def goes_with_worker(self, document: str, tenant: str, text: str) -> bool:
        """Tell whether a text was cached by nobody who did not hold the tenant for a worker.

        Whoever cached it drops it, too, when it hears that the worker is gone; and where it was
        killed before, whoever has heard of it.
        """
        place = (document, tenant, text)
        return place in self._texts and place not in self._unplaced

    def knows_element(self, element: Any) -> bool:
        """Tell whether anybody added an element."""
        return element in self._elements

    def increments_held(self, vectors: Vectors, document: str) -> int:
        """Return how many increments surviving nodes hold.

        Args:
            vectors: of the nodes that survive.
            document: where they were made.
        """
        if document in self._pardoned:
            return 0
        return sum(_is_held(receipt, vectors) for receipt in self._increments)

    def texts_held(self, vectors: Vectors) -> Iterator[tuple[str, str, str]]:
        """Yield (document, tenant, text) that must be there: held, and its tenant never removed."""
        for (document, tenant, text), receipts in self._texts.items():
            if (document, tenant) in self._removed_tenants or document in self._pardoned:
                continue
            if any(_is_held(receipt, vectors) for receipt in receipts):
                yield document, tenant, text

    def elements_held(self, vectors: Vectors, document: str) -> set[str]:
        """Return the elements that must be in the set: added, held, and nowhere removed since.

        Args:
            vectors: of the nodes that survive.
            document: the set.
        """
        if document in self._pardoned:
            return set()
        gone = [removal.dots for removal in self._removals]
        live = []
        for addition in reversed(self._additions):  # one is gone with that which took its place
            if _contain(gone, addition.dot):
                gone.append(addition.seen)
            else:
                live.append(addition)
        return {addition.element for addition in live if _is_held(addition.receipt, vectors)}

    def elements_gone(self, vectors: Vectors) -> set[str]:
        """Return the elements that must not be in the set: each addition is seen to be over."""
        over = [removal.dots for removal in self._removals if _is_held(removal.receipt, vectors)]
        kept: set[str] = set()
        for addition in reversed(self._additions):
            if not _contain(over, addition.dot):
                kept.add(addition.element)
            if _is_held(addition.receipt, vectors):
                over.append(addition.seen.minus(CausalContext((addition.dot,))))
        return self._elements - kept


def _is_held(receipt: WriteReceipt, vectors: Vectors) -> bool:
    return any(vector.get(receipt.actor, 0) >= receipt.sequence for vector in vectors)


def _contain(contexts: Iterable[CausalContext], dot: Dot) -> bool:
    return any(context.contains(dot) for context in contexts)
