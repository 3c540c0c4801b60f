"""Which class an annotation such as `ORMap[str, ORSet[str]]` means."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from meshlib.crdt.registry import type_tag
from meshlib.errors import InvalidTypeError

__all__ = ["lattice_class"]


def lattice_class(annotation: Any) -> type[Any]:
    """Return the registered class of an annotation.

    Parameters that are lattices make a class of their own (`Pair[GCounter, GSet[str]]`);
    others are for type checkers alone (`GSet[str]`).

    Raises:
        InvalidTypeError: no lattice, or one that needs parameters and has none.
    """
    origin = get_origin(annotation) or annotation
    arguments = get_args(annotation)
    if not isinstance(origin, type):
        raise InvalidTypeError(f"{annotation!r} is no lattice")
    of_arguments = getattr(origin, "of_arguments", None)
    if arguments and of_arguments is not None:
        made: type[Any] = of_arguments(arguments)
        return made
    type_tag(origin)  # raises when it is not registered
    return origin
