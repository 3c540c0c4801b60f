"""How many calls are answered at one time on the port for Envoys.

gRPC's own count has the event loop call back once more for each call; this one does not.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final

import grpc

__all__ = ["CALLS_MAX", "Calls"]

CALLS_MAX: Final = 4096
"""Calls that are answered at one time; the next ones are told to come again."""


class Calls:
    """The calls that are under way on one port: `with` it a call is one of them.

    Args:
        count_max: how many there may be.
    """

    __slots__ = ("count", "count_max")

    def __init__(self, *, count_max: int = CALLS_MAX) -> None:
        self.count = 0
        self.count_max = count_max

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more."""
        return self.count >= self.count_max

    @staticmethod
    async def refuse(context: Any) -> None:
        """Tell a caller to come again, by what ends its call."""
        await context.abort(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls are answered at one time"
        )

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.count -= 1
