"""Who hears whom: what each node says of those that it does not hear itself.

Members that answer nobody are Down on every node alike. But one that others hear and this node does
not, since a link is broken in one direction or between two of many, is Alive everywhere: others
probe it in this node's stead. Such a node says so to all, in a small document of its own.

Rule: while everybody hears everybody nothing is written at all.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

from meshlib import Document, MeshNode, MeshRuntime, WriteContext
from meshlib.crdt import LWWMap
from meshlib.membership import MemberStatus

__all__ = ["VIEWS", "read_views", "tell_unheard", "unheard_by"]

VIEWS: Final = "server_views"
"""The document: a node's name, and the names of those that it does not hear, as JSON."""

Views = LWWMap[str, str]

_LOOK_S: Final = 1.0
_MEMBERS_MAX: Final = 64
"""Of more members nobody could read a matrix."""

_EXCHANGES_MISSED: Final = 10
"""So many turns of a peer's have passed without a word of it."""


def unheard_by(node: MeshNode) -> list[str]:
    """Return the neighbours that are Alive and have not been heard directly for long. O(members).

    Each node exchanges with one peer an interval, so of a peer something is heard about every
    `members / 2` intervals; it counts as not heard after `_EXCHANGES_MISSED` times that.

    Args:
        node: the node.
    """
    shown = node.diagnostics()
    members = {member.name: member for member in node.members()}
    neighbours = [name for name in shown["view"]["neighbours"] if name in members]
    if not neighbours or len(members) > _MEMBERS_MAX:
        return []
    now, since = shown["timers"]["now"], shown["members"]["since"]
    heard = shown["stability"]["peers"]
    turn_s = node.config.gossip.exchange_interval_s * max(1.0, len(members) / 2)
    limit_s = _EXCHANGES_MISSED * turn_s
    return sorted(
        name
        for name in neighbours
        if members[name].status is MemberStatus.ALIVE
        and now - since.get(name, now) > limit_s
        and (name not in heard or now - heard[name].heard_at > limit_s)
    )


def read_views(mesh: MeshRuntime) -> dict[str, list[str]]:
    """Return whom each member does not hear, as it said; of those that said so. O(members)."""
    if len(mesh.members()) > _MEMBERS_MAX:
        return {}
    state = _document(mesh).state
    views: dict[str, list[str]] = {}
    for member in mesh.members():
        names = _read(state.get(member.name))
        if names:
            views[member.name] = names
    views[mesh.node.name] = unheard_by(mesh.node)
    return views


def _read(text: object) -> list[str]:
    """Read what a node said; what is no list of names says nothing."""
    try:
        names = json.loads(text) if isinstance(text, str) else []
    except ValueError:
        return []
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names[:_MEMBERS_MAX] if is_list else []


async def tell_unheard(mesh: MeshRuntime) -> None:
    """Say whom this node does not hear, whenever that changes; for as long as it runs."""
    await mesh.wait_ready(None)
    name, told = mesh.node.name, ""
    while True:
        unheard = unheard_by(mesh.node)
        text = json.dumps(unheard) if unheard else ""
        if text != told:
            _tell(mesh, name, text)
            told = text
        await asyncio.sleep(_LOOK_S)


def _tell(mesh: MeshRuntime, name: str, text: str) -> None:
    document = _document(mesh)
    if text:
        document.write(lambda state, context: _set(state, name, text, context))
    elif name in document.state:
        document.write(lambda state, context: _remove(state, name, context))


def _set(state: Views, name: str, text: str, context: WriteContext) -> Views:
    return state.set(name, text, stamp=context.stamp(), sequence=context.sequence)


def _remove(state: Views, name: str, context: WriteContext) -> Views:
    return state.remove(name, stamp=context.stamp(), sequence=context.sequence)


def _document(mesh: MeshRuntime) -> Document[Views]:
    return mesh.document(VIEWS, LWWMap)
