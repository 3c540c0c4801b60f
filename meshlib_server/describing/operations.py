"""What a handler takes, answers and needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, TypeVar

from attrs import field, frozen

__all__ = ["JSON", "Operation", "Scope", "described", "operation_of"]

JSON: Final = "application/json"

_ATTRIBUTE: Final = "_described_as"

HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])


class Scope(StrEnum):
    """What a token opens. Each of the first three opens what those before it open."""

    READ = "read"
    """Look at everything, change nothing."""

    OPERATE = "operate"
    """What routers do: write workers, policies, limits, configuration and trees; decide."""

    ADMIN = "admin"
    """End a node, and forget a member."""

    PEER = "peer"
    """The gossip between nodes, and no endpoint."""

    def opens(self, wanted: Scope) -> bool:
        """Tell whether a token of this scope opens what wants another."""
        if Scope.PEER in (self, wanted):
            return self is wanted
        return _ORDER.index(self) >= _ORDER.index(wanted)


_ORDER: Final = (Scope.READ, Scope.OPERATE, Scope.ADMIN)


@frozen(kw_only=True)
class Operation:
    """What one method of one path is.

    Args:
        summary: what it does, in one line.
        scope: what a token must open for it; None: none is asked for.
        body: the record that its body is read into; None: it takes none.
        answers: what comes back, by status: a type, a `Shape`, or None for no JSON.
        errors: statuses of errors beside those that every operation has.
        query: the query parameters, with what each is.
        media_type: of the answers that are no errors.
        is_mesh: whether it needs a node: it is 503 where the mesh is not enabled.
        is_capped: whether it counts towards what one address may ask.
        is_write: whether it writes what every node is to have.
    """

    summary: str
    scope: Scope | None
    body: type | None = None
    answers: Mapping[int, Any] = field(factory=dict)
    errors: tuple[int, ...] = ()
    query: Mapping[str, str] = field(factory=dict)
    media_type: str = JSON
    is_mesh: bool = True
    is_capped: bool = True
    is_write: bool = False


def described(
    summary: str,
    *,
    scope: Scope | None,
    answers: Mapping[int, Any],
    body: type | None = None,
    errors: tuple[int, ...] = (),
    query: Mapping[str, str] | None = None,
    media_type: str = JSON,
    is_mesh: bool = True,
    is_capped: bool = True,
    is_write: bool = False,
) -> Callable[[HandlerT], HandlerT]:
    """Describe a handler. The arguments are those of `Operation`."""
    operation = Operation(
        summary=summary,
        scope=scope,
        body=body,
        answers=answers,
        errors=errors,
        query=query or {},
        media_type=media_type,
        is_mesh=is_mesh,
        is_capped=is_capped,
        is_write=is_write,
    )

    def describe(handler: HandlerT) -> HandlerT:
        setattr(handler, _ATTRIBUTE, operation)
        return handler

    return describe


def operation_of(handler: Callable[..., Any]) -> Operation:
    """Return what a handler is described as.

    Raises:
        TypeError: it is not described.
    """
    operation = getattr(handler, _ATTRIBUTE, None)
    if not isinstance(operation, Operation):
        raise TypeError(f"{handler!r} is not described")
    return operation
