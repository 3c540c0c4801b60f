"""Rate limits for an application that runs in threads beside the node's event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

from meshlib.errors import StateError
from meshlib_server.middleware.charges import Answer, Charge
from meshlib_server.middleware.charging import (
    Admission,
    Charging,
    MeshSource,
    OnFailure,
)

__all__ = ["WsgiRateLimitMiddleware"]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]


class WsgiRateLimitMiddleware:
    """Refuses requests that are over their limits; as `RateLimitMiddleware`, for WSGI.

    The node runs in an event loop of its own, in another thread; each request waits for one turn
    of that loop. Functions of charges get the WSGI environment. They, and those that say what was
    used, are called in the thread of the loop: they must not wait.

    Args:
        app: what is served.
        mesh: the node, which may start later, or what returns it once there is one.
        charges: what requests are charged; one passes all of them or is charged for none.
        on_failure: as for `RateLimitMiddleware`.
        timeout_s: likewise.

    Raises:
        ConfigError: no charge, or a mode that is none.
    """

    def __init__(
        self,
        app: WsgiApp,
        *,
        mesh: MeshSource,
        charges: Sequence[Charge],
        on_failure: str = OnFailure.CLOSED,
        timeout_s: float | None = None,
    ) -> None:
        self._app = app
        self._charging = Charging(mesh, charges=charges, on_failure=on_failure, timeout_s=timeout_s)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, or refuse it. In any thread but that of the node's event loop."""
        try:
            admission: Admission = self._charging.mesh().call(self._charging.admit, environ)
        except StateError as error:
            admission = self._charging.failed(error)
        if admission.refusal is not None:
            refusal = admission.refusal
            phrase = HTTPStatus(refusal.status_code).phrase
            start_response(f"{refusal.status_code} {phrase}", list(refusal.headers.items()))
            return [refusal.body]
        answer = Answer()
        more = list(admission.headers().items())

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            answer.status_code = int(status.split(" ", 1)[0])
            return start_response(status, [*headers, *more], *rest)

        if not admission.is_open:
            return self._app(environ, start)
        admission.register(environ)
        try:
            return _Followed(self._app(environ, start), admission, answer)
        except BaseException:
            _settle(admission, answer)
            raise


class _Followed:
    """An answer that is settled when the server closes it, which PEP 3333 has it do always."""

    def __init__(self, inner: Iterable[bytes], admission: Admission, answer: Answer) -> None:
        self._inner = inner
        self._admission = admission
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        for data in self._inner:
            yield data
            self._answer.feed(data)
        self._answer.is_complete = True

    def close(self) -> None:
        """Settle, and close what the application returned."""
        try:
            close = getattr(self._inner, "close", None)
            if close is not None:
                close()
        finally:
            _settle(self._admission, self._answer)


def _settle(admission: Admission, answer: Answer) -> None:
    assert admission.mesh is not None
    try:
        admission.mesh.call(admission.settle, answer)
    except StateError as error:
        admission.note_ended(error)
