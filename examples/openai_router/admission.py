"""Who may pass: the API key, its parallel requests, requests and tokens a minute.

All routers count together, and none of them asks a store: `mesh` answers from what this router
holds, or after one round trip to the router that owns the key.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, OrderedDict
from collections.abc import Mapping

from attrs import define
from openai_router.settings import Settings
from starlette.responses import Response

from meshlib import Decision, MeshError, MeshRuntime
from meshlib.aio import ConcurrencyLimit, HeldSlot
from meshlib.errors import InvalidFieldError, StateError, UnknownKeyError
from meshlib.ratelimit import Reservation
from meshlib_server.middleware import rate_limit_headers

MINUTES_MAX = 60
"""Minutes of the ledger."""


class RefusedError(Exception):
    """An answer instead of the worker's, in the form of the OpenAI API."""

    def __init__(self, status: int, code: str, message: str, decision: Decision | None = None):
        super().__init__(message)
        self.status, self.code, self.decision = status, code, decision

    def response(self) -> Response:
        """Return what is answered; `Retry-After` is what the OpenAI clients wait for."""
        kind = "invalid_request_error" if self.status < 429 else "server_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        error = {"message": str(self), "type": kind, "param": None, "code": self.code}
        headers: dict[str, str] = {}
        if self.decision is not None:
            headers.update(rate_limit_headers(self.decision))
        elif self.status == 503:
            headers["Retry-After"] = "1"
        body = json.dumps({"error": error})
        return Response(body, self.status, headers, media_type="application/json")


@define
class Admission:
    """What one request holds while it runs."""

    tenant: str
    slot: HeldSlot
    reservation: Reservation
    request: Decision


class Doorkeeper:
    """Admits requests, and settles them when they are over.

    Args:
        mesh: this router's node.
        settings: which keys there are, and their limits.
    """

    def __init__(self, mesh: MeshRuntime, settings: Settings) -> None:
        self._mesh, self._settings = mesh, settings
        self._parallel = ConcurrencyLimit(mesh, slots=settings.parallel, name="parallel")
        self._tenants = {self.tenant_of(key) for key in settings.keys}
        self.settled: Counter[str] = Counter()
        """Tokens that were settled here, by tenant: what a bill would be made of."""
        self.ledger: OrderedDict[int, Counter[tuple[str, str]]] = OrderedDict()
        """The same of the last hour, minute by minute as they were counted, and the requests."""

    @staticmethod
    def tenant_of(key: str) -> str:
        """Return the name that a key has among routers and workers: no secret leaves this file."""
        return hashlib.sha256(key.encode()).hexdigest()[:16]

    def who(self, headers: Mapping[str, str]) -> str:
        """Return the tenant of a request."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        tenant = self.tenant_of(key.strip())
        if scheme.lower() != "bearer" or tenant not in self._tenants:
            raise RefusedError(401, "invalid_api_key", "no API key, or one that is not known")
        return tenant

    async def admit(self, tenant: str, *, estimate: int) -> Admission:
        """Take a slot, one request and an estimate of its tokens; all of them or none.

        Args:
            tenant: whose request it is.
            estimate: tokens that it cannot go beyond: what is not used is given back at the end.
        """
        most = self._settings.tokens_per_minute
        if estimate > most:
            message = f"up to {estimate} tokens are more than the {most} of a minute"
            raise RefusedError(400, "request_too_large", message)
        try:
            slot = await self._parallel.acquire(tenant, timeout_s=self._settings.queue_s)
            if not slot:
                message = f"{self._settings.parallel} requests of this key run already"
                raise RefusedError(429, "too_many_parallel_requests", message, slot.decision)
            try:
                return Admission(tenant, slot, *await self._count(tenant, estimate))
            except BaseException:
                slot.release()
                raise
        except InvalidFieldError as error:
            raise RefusedError(400, "invalid_request", str(error)) from error
        except MeshError as error:  # not ready yet, or about to end
            raise RefusedError(503, "not_ready", "no limit can be decided now") from error

    async def _count(self, tenant: str, estimate: int) -> tuple[Reservation, Decision]:
        timeout_s = self._settings.owner_timeout_s
        reservation = await self._mesh.reserve_confirmed(
            f"tokens:{tenant}", estimate=estimate, timeout_s=timeout_s
        )
        decision = reservation.decision
        try:
            if reservation:
                decision = await self._mesh.acquire_confirmed(
                    f"requests:{tenant}", timeout_s=timeout_s
                )
        except BaseException:
            self._give_back(reservation)
            raise
        if not decision:
            self._give_back(reservation)
            message = f"over the limit of {decision.policy}: "
            message += "requests" if reservation else "tokens"
            raise RefusedError(429, "rate_limit_exceeded", message, decision)
        return reservation, decision

    def _give_back(self, reservation: Reservation) -> None:
        if reservation:
            self._mesh.settle(reservation, actual=0)

    def end(self, admission: Admission, *, tokens: int) -> None:
        """Count what was really used in the place of the estimate, and free the slot."""
        admission.slot.release()
        self.settled[admission.tenant] += tokens
        self._note(admission.request.window, admission.tenant, "requests", 1)
        self._note(admission.reservation.decision.window, admission.tenant, "tokens", tokens)
        try:
            self._mesh.settle(admission.reservation, actual=tokens)
        except (UnknownKeyError, StateError):
            # Its 600 seconds are over, or the node ended first: it stays at its estimate.
            print(f"{self._settings.name}: a request stays at its estimate", flush=True)

    def _note(self, window: int, tenant: str, what: str, count: int) -> None:
        minute = self.ledger.setdefault(window, Counter())
        minute[tenant, what] += count
        while len(self.ledger) > MINUTES_MAX:
            self.ledger.popitem(last=False)
