"""What happens, as server-sent events: for the page, and for whoever reads them from a script.

Rule: who does not read loses events, and is told how many; nobody else waits for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import attrs

from meshlib import Event, MeshRuntime
from meshlib_server.problems import Code, Unavailable

__all__ = ["STREAMS_MAX", "EventFeed", "fields_of"]

STREAMS_MAX: Final = 64
"""Streams at once: each costs an overview a second."""

_OVERVIEW_S: Final = 1.0
_QUEUE_MAX: Final = 1024


class EventFeed:
    """The streams of one node.

    Args:
        overview: makes what is so now.
        is_ending: tells whether streams must end.
    """

    def __init__(
        self, overview: Callable[[], dict[str, Any]], *, is_ending: Callable[[], bool]
    ) -> None:
        self._overview = overview
        self._is_ending = is_ending
        self._count = 0

    def check_room(self) -> None:
        """Refuse one stream too many.

        Raises:
            Unavailable: there are as many as may be.
        """
        if self._count >= STREAMS_MAX:
            message = f"{STREAMS_MAX} streams of events are open already"
            raise Unavailable(message, code=Code.UNAVAILABLE)

    async def stream(self, mesh: MeshRuntime, *, has_overviews: bool) -> AsyncIterator[str]:
        """Yield an overview, then what happens, as `text/event-stream` has it.

        Args:
            mesh: the node.
            has_overviews: whether another overview follows each second; otherwise a comment
                does, so that both sides learn when the other one has gone.
        """
        self._count += 1
        try:
            with mesh.events(queue_max=_QUEUE_MAX) as events:
                yield _written("overview", self._overview())
                missed = 0
                waiting = asyncio.ensure_future(anext(events))
                try:
                    while not self._is_ending():
                        done, _ = await asyncio.wait({waiting}, timeout=_OVERVIEW_S)
                        if not done:
                            yield (
                                _written("overview", self._overview())
                                if has_overviews
                                else (": nothing has happened\n\n")
                            )
                            continue
                        try:
                            event = waiting.result()
                        except StopAsyncIteration:
                            return
                        waiting = asyncio.ensure_future(anext(events))
                        if events.missed_count > missed:
                            lost, missed = events.missed_count - missed, events.missed_count
                            yield _written("missed", {"count": lost})
                        yield _written(type(event).__name__, fields_of(event))
                finally:
                    waiting.cancel()
        finally:
            self._count -= 1


def fields_of(event: Event) -> dict[str, Any]:
    """Return an event's fields, as plain values: of a member its name, of a number the number."""
    fields: dict[str, Any] = {}
    for name, value in attrs.asdict(event, recurse=False).items():
        is_plain = isinstance(value, (bool, int, float))
        fields[name] = value if is_plain else getattr(value, "name", None) or str(value)
    return fields


def _written(kind: str, data: dict[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
