"""What a node is asked about prompts: where one goes, and what becomes of it there.

Rule: none of these waits, and each supplies the time to what is below.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from meshlib.clock import MonotonicTime
from meshlib.errors import InvalidValueError, UnknownKeyError
from meshlib.node.volatile import VolatileTraffic
from meshlib.routing import SESSION_TTL_S, RouteDecision, Word, say
from meshlib.sync import MeshSyncManager

__all__ = ["RoutingVerbs"]


class RoutingVerbs:
    """The verbs of routing of a node, which has the stores, the time and whom to wake."""

    sync: MeshSyncManager
    wakeup: Callable[[], None] | None
    wakeup_soon: Callable[[], None] | None
    _time: MonotonicTime
    _volatile: VolatileTraffic

    def select(
        self,
        model_id: str,
        text: str,
        *,
        tokens: float | None = None,
        exclude: Collection[str] = (),
        candidates: Collection[str] | None = None,
        salt: str = "",
        session: str = "",
        session_ttl_s: float = SESSION_TTL_S,
        held: Mapping[str, int] | None = None,
        now: float | None = None,
    ) -> RouteDecision:
        """Choose a worker for a prompt and record nothing; as `MeshSyncManager.select`."""
        return self.sync.select(
            model_id,
            text,
            tokens=tokens,
            exclude=exclude,
            candidates=candidates,
            salt=salt,
            session=session,
            session_ttl_s=session_ttl_s,
            held=held,
            now=None if now is None else self._time.follow(now),
        )

    def placed(self, decision: RouteDecision) -> None:
        """Record everywhere that a worker has taken a prompt; as `MeshSyncManager.placed`."""
        self.sync.placed(decision)

    def route(
        self,
        model_id: str,
        text: str,
        *,
        tokens: float | None = None,
        exclude: Collection[str] = (),
        candidates: Collection[str] | None = None,
        salt: str = "",
        session: str = "",
        session_ttl_s: float = SESSION_TTL_S,
        held: Mapping[str, int] | None = None,
        record: bool = True,
        now: float | None = None,
    ) -> RouteDecision:
        """Choose a worker for a prompt and record the placement everywhere. Never waits.

        As `MeshSyncManager.route`.
        """
        return self.sync.route(
            model_id,
            text,
            tokens=tokens,
            exclude=exclude,
            candidates=candidates,
            salt=salt,
            session=session,
            session_ttl_s=session_ttl_s,
            held=held,
            record=record,
            now=None if now is None else self._time.follow(now),
        )

    def begin(
        self,
        target: RouteDecision | str,
        *,
        prefill_tokens: float | None = None,
        is_tentative: bool = False,
        now: float,
    ) -> str:
        """Count a request that is sent to a worker, on all nodes. Never waits.

        Args:
            target: what `route` or `select` said, or the worker's id.
            prefill_tokens: tokens that the worker has to prefill; None: as the decision expects.
            is_tentative: as for `SharedLoad.begin`.
            now: monotonic seconds.

        Returns:
            the request's name, for `first_token`, `end` and `renew_request`. A request that is
            neither ended nor renewed counts as ended after 600 seconds.

        Raises:
            InvalidValueError: the decision chose nobody.
            LocalError: as `SharedLoad.begin`. Nothing is counted after either.
        """
        worker_id: str | None
        if isinstance(target, RouteDecision):
            worker_id = target.worker_id
            if worker_id is None:
                raise InvalidValueError("the decision chose no worker")
            if prefill_tokens is None:
                prefill_tokens = target.prefill_tokens
        else:
            worker_id = target
        request_id = self.sync.load.begin(
            worker_id,
            prefill_tokens=prefill_tokens or 0.0,
            is_tentative=is_tentative,
            now=self._time.follow(now),
        )
        self._told()
        return request_id

    def first_token(self, request_id: str, *, now: float) -> None:
        """Take note that a request's worker has answered: it is prefilled; `SharedLoad`.

        As `end`.
        """
        self._say(Word.FIRST_TOKEN, request_id, now)

    def end(self, request_id: str, *, now: float) -> None:
        """Take note that a request is over, however it ended; as `SharedLoad.end`.

        A request of another router, by its name, is told to that one, which may find that it is
        over already.

        Raises:
            UnknownKeyError: no such request is in flight here, nor is its router in reach. State
                unchanged.
        """
        self._say(Word.END, request_id, now)

    def renew_request(
        self, request_id: str, *, decoded_tokens: int | None = None, now: float
    ) -> None:
        """Let a long request count for another 600 seconds; as `SharedLoad.renew`, and `end`.

        Args:
            request_id: the request.
            decoded_tokens: how many it has decoded so far, if the caller knows; 0 to 2**32 - 1.
            now: monotonic seconds.
        """
        self._say(Word.RENEW, request_id, now, decoded_tokens)

    def _say(
        self, word: Word, request_id: str, now: float, decoded_tokens: int | None = None
    ) -> None:
        load, at = self.sync.load, self._time.follow(now)
        try:
            say(load, word, request_id, decoded_tokens=decoded_tokens, now=at)
        except UnknownKeyError:
            if not self._volatile.pass_on(word, request_id, decoded_tokens=decoded_tokens or 0):
                raise
        self._told()

    def _told(self) -> None:
        """Have whoever drives this node look for what is to be told to others."""
        wake = self.wakeup_soon or self.wakeup
        if wake is not None:
            wake()
