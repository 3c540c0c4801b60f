"""Which names are those of nodes that are gone for long, so that what they said may go too.

Rule this file owns: who is alone does not know who else there is, but for those that it was told to
forget.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshlib.gossip import Engine
from meshlib.membership import MemberRecord, MemberSet
from meshlib.node.health import LONG_GONE_S

__all__ = ["gone_for_long"]


def gone_for_long(
    names: Iterable[str], engine: Engine, *, written_off: MemberSet, now: float
) -> list[str]:
    """Return those of some names whose nodes were forgotten, or are out of reach for long.

    O(members + names).

    Args:
        names: of nodes that may not be known any longer.
        engine: knows the members.
        written_off: of whom an operator has said that they do not come back.
        now: monotonic seconds.
    """
    members = {member.name: member for member in engine.members()}
    has_company = len(engine.reachable_names()) > 1

    def is_gone(member: MemberRecord | None) -> bool:
        if member is None:
            return has_company
        if member.is_reachable:
            return False
        return member in written_off or now - engine.since(member.name) > LONG_GONE_S

    return [name for name in names if is_gone(members.get(name))]
