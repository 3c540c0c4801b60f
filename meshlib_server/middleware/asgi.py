"""Rate limits for a whole ASGI application.

Rule: an answer goes out as the application sends it, piece by piece; only its headers get more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshlib_server.middleware.charges import Answer, Charge
from meshlib_server.middleware.charging import (
    Admission,
    Charging,
    MeshSource,
    OnFailure,
)
from meshlib_server.middleware.headers import Refusal, raw_headers

__all__ = ["RateLimitMiddleware", "follow", "send_refusal"]


class RateLimitMiddleware:
    """Refuses requests that are over their limits, before the application sees them.

    Plain ASGI. Decisions are those of `MeshRuntime.acquire_confirmed` and `reserve_confirmed`: no
    window admits more than its limit. What was refused is a 429 with `Retry-After`; every answer
    to a request that was charged has the headers of `rate_limit_headers`. WebSockets pass.

        app = Starlette(routes=[...], middleware=[
            Middleware(RateLimitMiddleware, mesh=mesh, charges=[
                Charge(key=by_header("x-api-key", prefix="user:", is_secret=True)),
            ]),
        ])

    Args:
        app: what is served.
        mesh: the node, which may start later, or what returns it once there is one. It runs in
            the same event loop.
        charges: what requests are charged; one passes all of them or is charged for none.
        on_failure: what is done with a request on which the node cannot decide, because it is not
            ready, has ended, or no limit is set for the key: `closed` answers 503, `open` lets
            it pass.
        timeout_s: seconds to wait for the owner of a key; as for `acquire_confirmed`.

    Raises:
        ConfigError: no charge, or a mode that is none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        mesh: MeshSource,
        charges: Sequence[Charge],
        on_failure: str = OnFailure.CLOSED,
        timeout_s: float | None = None,
    ) -> None:
        self._app = app
        self._charging = Charging(mesh, charges=charges, on_failure=on_failure, timeout_s=timeout_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        admission = await self._charging.admit(scope)
        if admission.refusal is not None:
            await send_refusal(admission.refusal, send)
        elif admission.reserved or admission.slots:
            await follow(self._app, scope, receive, send, admission=admission)
        else:
            await self._app(scope, receive, _with_headers(send, admission))


async def send_refusal(refusal: Refusal, send: Send) -> None:
    """Send the answer to a request that does not pass."""
    headers = refusal.raw_headers()
    await send({"type": "http.response.start", "status": refusal.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": refusal.body})


def _with_headers(send: Send, admission: Admission) -> Send:
    decision = admission.decision
    if decision is None or not (headers := raw_headers(decision)):
        return send

    def send_with_headers(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers]
        return send(message)

    return send_with_headers


async def follow(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, admission: Admission
) -> None:
    """Serve a request that was admitted, and settle it when it is over, however it ends."""
    answer, send = Answer(), _with_headers(send, admission)

    async def send_and_look(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status_code = message["status"]
        await send(message)
        if message["type"] == "http.response.body":
            answer.feed(message.get("body", b""))
            answer.is_complete = not message.get("more_body", False)

    admission.register(scope)
    try:
        await app(scope, receive, send_and_look)
    finally:
        admission.settle(answer)
