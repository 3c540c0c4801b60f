"""Bytes that no encoder wrote and a decoder may still take: states with more in them than fits.

Bits that flip at random seldom leave the form of an encoding. Here the form stays: lists of one
state get what the same lists of others hold, in several orders, or hold something twice. That is
what a peer sends whose limits are other ones, or whose code has a bug.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from meshlib.codec import pack, unpack
from meshlib.errors import MeshError

__all__ = ["grown"]

LISTS_MAX: Final = 8
"""Lists of one encoding that are made longer; those near the top hold the most."""

Path = tuple[Any, ...]


def grown(data: bytes, others: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a state with its lists made longer. O(lists * size).

    Args:
        data: an encoded state, in msgpack or JSON; of any other encoding nothing is yielded.
        others: encoded states of the same type, of whose lists the elements are taken.
    """
    form = _form_of([data, *others])
    if form is None:
        return
    read, write = form
    tree, trees = read(data), [read(other) for other in others]
    for path in _lists(tree)[:LISTS_MAX]:
        own = _at(tree, path)
        found = [list(more) for each in trees if isinstance(more := _at(each, path), list | tuple)]
        both = _distinct([*own, *(item for more in found for item in more)], write)
        in_order = sorted(both, key=_natural) if _is_sortable(both) else sorted(both, key=write)
        for longer in (both, in_order, in_order[::-1], [*own, *own[:1]], list(own)[::-1]):
            if list(longer) != list(own):
                yield write(_replaced(tree, path, longer))


def _form_of(
    encodings: Sequence[bytes],
) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]] | None:
    """Return how encodings are read and written, None where they are of no known form."""
    forms: tuple[tuple[Callable[[bytes], Any], Callable[[Any], bytes]], ...] = (
        (unpack, pack),
        (json.loads, lambda tree: json.dumps(tree, sort_keys=True).encode()),
    )
    for read, write in forms:
        try:
            for data in encodings:
                read(data)
        except (MeshError, ValueError):
            continue
        return read, write
    return None


def _lists(tree: Any) -> list[Path]:
    """Return the paths of the lists in a tree, those nearer to the top first."""
    found: list[Path] = []
    level: list[tuple[Path, Any]] = [((), tree)]
    while level and len(found) < LISTS_MAX:
        found += [path for path, node in level if isinstance(node, list | tuple)]
        level = [((*path, key), child) for path, node in level for key, child in _children(node)]
    return found


def _children(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, list | tuple):
        yield from enumerate(node)
    elif isinstance(node, dict):
        yield from node.items()


def _at(tree: Any, path: Path) -> Any:
    """Return what is found at a path, None where a tree has no such place."""
    for key in path:
        tree = dict(_children(tree)).get(key)
    return tree


def _replaced(tree: Any, path: Path, what: Sequence[Any]) -> Any:
    if not path:
        return list(what)
    key, *rest = path
    changed = _replaced(dict(_children(tree))[key], tuple(rest), what)
    if isinstance(tree, dict):
        return {**tree, key: changed}
    return [*tree[:key], changed, *tree[key + 1 :]]


def _distinct(items: Sequence[Any], write: Callable[[Any], bytes]) -> list[Any]:
    return list({write(item): item for item in items}.values())


def _is_sortable(items: Sequence[Any]) -> bool:
    """Tell whether Python orders the items; None and lists of unlike things it does not."""
    try:
        sorted(items, key=_natural)
    except TypeError:
        return False
    return True


def _natural(item: Any) -> Any:
    return tuple(map(_natural, item)) if isinstance(item, list | tuple) else item
