"""Who may enter a node, and when: one thread, from the start to the end.

Rule: a node is entered by the thread of its event loop alone. Whoever comes from another one is
refused before anything is touched, or is taken across by `Gate.call`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction
from threading import Lock, get_ident
from typing import Any, NoReturn, ParamSpec, TypeVar, overload

from meshlib.arguments import check_callable
from meshlib.errors import InvalidTypeError, StateError, ThreadError

__all__ = ["Gate"]

P = ParamSpec("P")
T = TypeVar("T")

_NOBODY = 0
"""No thread has this number."""

_LOOK_S = 1.0
"""How often one who waits looks whether the loop still runs."""


class Gate:
    """Lets the thread that opened it in, until it is closed."""

    __slots__ = ("_is_closed", "_lock", "_loop", "_owner", "_tasks", "_waiting")

    def __init__(self) -> None:
        self._owner = _NOBODY
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._lock = Lock()
        self._waiting: set[concurrent.futures.Future[Any]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    def open(self) -> None:
        """Let the calling thread in; its event loop runs."""
        self._loop = asyncio.get_running_loop()
        self._owner = get_ident()

    def close(self) -> None:
        """Let nobody in from now on, and refuse those who wait. Idempotent."""
        self._owner = _NOBODY
        with self._lock:
            self._is_closed = True
            waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_exception(StateError("the runtime has ended"))

    def check(self) -> None:
        """Refuse who may not enter. O(1), and two comparisons.

        Raises:
            ThreadError: the caller is in another thread.
            StateError: not open yet, or closed. Nothing was changed.
        """
        if get_ident() != self._owner:
            self.refuse()

    def refuse(self) -> NoReturn:
        """Raise why a caller may not enter now; see `check`."""
        if self._is_closed:
            raise StateError("the runtime has ended")
        if self._owner == _NOBODY or get_ident() == self._owner:
            raise StateError("the runtime was not started")
        raise ThreadError(
            "a node is used from the thread of its event loop only: from another one "
            "call `runtime.call(function, ...)`, which runs the function there"
        )

    def check_loop(self) -> None:
        """Refuse a coroutine that runs in another event loop than the node's. O(1).

        What waits in one loop is not woken by what happens in another.

        Raises:
            ThreadError: it runs in another loop, of this thread or of another one. Nothing was
                changed. Before the opening every loop is let by.
        """
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise ThreadError(
                "a node is waited for in the event loop that it was started on only: from another "
                "thread use `asyncio.run_coroutine_threadsafe(coroutine, loop)`"
            )

    @overload
    def call(
        self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @overload
    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function in the thread of the loop, and return what it returns.

        A coroutine's function runs there as a task, and is waited for.

        Raises:
            InvalidTypeError: no function; or a coroutine's in the loop's own thread, which would
                wait for itself. Nothing ran.
            StateError: not open yet, or closed before the function ran or the coroutine was done,
                or the loop has ended.
            BaseException: what the function raised.
        """
        check_callable("function", function, wanted="a function")
        is_coroutines = iscoroutinefunction(function)
        if get_ident() == self._owner:
            if is_coroutines:
                raise InvalidTypeError(
                    "in the event loop's own thread call takes an ordinary function, not a "
                    "coroutine's: await that"
                )
            return function(*args, **kwargs)
        loop = self._loop
        if loop is None or self._is_closed:
            self.refuse()
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def run() -> None:
            with self._lock:
                if future not in self._waiting:
                    return  # refused meanwhile
                if not is_coroutines:
                    self._waiting.discard(future)
            try:
                result = function(*args, **kwargs)
                if is_coroutines:
                    task = loop.create_task(result)
                    self._tasks.add(task)
                    task.add_done_callback(lambda task: self._hand_back(task, future))
                    return
                future.set_result(result)
            except BaseException as error:  # whatever it is: who waits would wait for ever
                self._forget(future)
                future.set_exception(error)
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    raise  # the loop's own affair too

        with self._lock:
            if self._is_closed:
                self.refuse()
            self._waiting.add(future)
        try:
            loop.call_soon_threadsafe(run)
        except RuntimeError:
            self._forget(future)
            raise StateError("the event loop of the runtime has ended") from None
        while not concurrent.futures.wait((future,), timeout=_LOOK_S).done:
            if not loop.is_running():
                self._forget(future)
                raise StateError("the event loop of the runtime has ended")
        return future.result()

    def _hand_back(self, task: asyncio.Task[Any], future: concurrent.futures.Future[Any]) -> None:
        """Give what a coroutine came to to who waits for it, if nobody refused it meanwhile."""
        self._tasks.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        with self._lock:
            is_awaited = future in self._waiting
            self._waiting.discard(future)
        if not is_awaited:
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())

    def _forget(self, future: concurrent.futures.Future[Any]) -> None:
        with self._lock:
            self._waiting.discard(future)
