"""A document with its type: what an application holds of a replicated state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

from meshlib.arguments import check_callable
from meshlib.crdt import Lattice, registry
from meshlib.errors import InvalidTypeError
from meshlib.replication.local import LocalReplica
from meshlib.replication.records import WriteReceipt
from meshlib.replication.writes import WriteContext

__all__ = ["Document", "DocumentChanges"]

LatticeT = TypeVar("LatticeT", bound=Lattice)


class Document(Generic[LatticeT]):
    """One replicated state of one type: read by `state`, changed by `write`.

    Made by `MeshRuntime.document` and `MeshNode.document`; two of one name are the same document.

    Args:
        replica: holds it.
        name: its name, the same on every node.
        kind: its class, which is registered.

    Raises:
        DocumentTypeError: it exists with another type.
        InvalidTypeError: it is no class, or one that is not registered, or the name is no text.
        InvalidValueError: a malformed name.
        LimitError: one more document than allowed, or too long a name.
    """

    __slots__ = ("_replica", "kind", "name")

    def __init__(self, replica: LocalReplica, name: str, *, kind: type[LatticeT]) -> None:
        if not isinstance(kind, type):
            raise InvalidTypeError(f"a document's kind must be a class, not {type(kind).__name__}")
        self._replica = replica
        self.name = name
        self.kind = kind
        replica.open(name, type_tag=registry.type_tag(kind))

    @property
    def state(self) -> LatticeT:
        """What is known here now: to be read, and changed by `write` only. O(1).

        Ask again rather than keep it: of a frozen type every write makes another one.
        """
        return cast("LatticeT", self._replica.get(self.name))

    def write(self, mutate: Callable[[LatticeT, WriteContext], LatticeT]) -> WriteReceipt:
        """Change the document here, and everywhere with the next flush. O(delta).

        Args:
            mutate: takes the state and what marks a write (`dot()`, `stamp()`, `actor`,
                `sequence`), and returns the delta: what a mutator of the type returns. It
                changes nothing, and may be called again under another number.

        Returns:
            the number under which it travels; `MeshRuntime.wait_converged` takes it.

        Raises:
            InvalidTypeError: no function, or the delta is not of the document's type.
            LimitError: the delta's bytes are over `limits.ENTRY_BYTES_MAX`.
            Exception: whatever `mutate` raises. Nothing is changed in any of these cases.
        """
        check_callable("mutate", mutate, wanted="a function of the state and the context")
        return self._replica.write(self.name, mutate)

    def changes(self) -> DocumentChanges[LatticeT]:
        """Hear of what becomes new in the document from now on, own writes too. Close it when done.

        For who keeps something that is made of a large state, and would rather not make it anew
        with each change. O(1).
        """
        return DocumentChanges(self)

    def __repr__(self) -> str:
        return f"Document({self.name!r}, {self.kind.__name__})"


class DocumentChanges(Generic[LatticeT]):
    """What became new in one document: a bounded queue for one reader, made by `Document.changes`.

    Args:
        document: which one.
    """

    __slots__ = ("_readings", "_replica")

    def __init__(self, document: Document[LatticeT]) -> None:
        self._replica = document._replica  # noqa: SLF001 - the two are one thing
        self._readings = self._replica.read(document.name)

    def take(self) -> list[LatticeT] | None:
        """Return what became new since the last call, as deltas in order; None: all of it. O(1).

        None comes at first, after 256 deltas that were not taken, and when something vanished
        without a removal: then `Document.state` is to be read anew. Deltas are to be read and not
        changed; what was new may come twice.
        """
        if self._replica.guard is not None:
            self._replica.guard()
        return cast("list[LatticeT] | None", self._readings.take())

    def close(self) -> None:
        """Hear of nothing any more; what waits is dropped. Closing again changes nothing."""
        self._readings.is_closed = True
        self._readings.take()
