"""What is sent and how the answer is read, without IO.

Rule: this file alone knows paths and bodies; both clients send what it makes.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

from attrs import field, frozen

from meshlib_server.client import answers
from meshlib_server.client.answers import read_answer, read_answers
from meshlib_server.client.errors import ApiError, UnreachableError

__all__ = ["Call", "Calls", "read_events"]

Answer = TypeVar("Answer")

_LIMIT_KEY: Final = "rate_limit:"
"""Under which configuration keys limits but the global one are kept."""


@frozen(kw_only=True)
class Call(Generic[Answer]):
    """One request.

    Args:
        method: of HTTP.
        path: with keys encoded.
        read: makes the answer of what came back.
        body: what is sent, as JSON; None: nothing.
        statuses: those that are no error.
    """

    method: str
    path: str
    read: Callable[[Any], Answer]
    body: dict[str, Any] | None = None
    statuses: tuple[int, ...] = field(default=(200, 202))

    def answer(self, status: int, content: bytes, *, retry_after: str | None) -> Answer:
        """Read what came back.

        Raises:
            ApiError: the server said no.
            UnreachableError: what answered is no server of this kind.
        """
        try:
            tree = json.loads(content)
        except ValueError:
            raise UnreachableError(f"what answered is no server of this kind: {status}") from None
        message = tree.get("error") if isinstance(tree, dict) and "code" in tree else None
        if status in self.statuses and message is None:
            return self.read(tree)
        if not isinstance(message, str):
            raise UnreachableError(f"what answered is no server of this kind: {status}")
        seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
        code = str(tree.get("code", ""))
        raise ApiError(message, status=status, code=code, retry_after_s=seconds)


def _quoted(key: str) -> str:
    return urllib.parse.quote(key, safe="")


def _nothing(_tree: Any) -> None:
    return None


def _hex(tree: Any) -> bytes:
    return bytes.fromhex(tree["value"])


class Calls:
    """Every call there is. Arguments and answers are those of the clients' methods."""

    def status(self) -> Call[answers.ClusterStatus]:
        """GET /mesh/status."""
        return Call(
            method="GET", path="/mesh/status",
            read=lambda tree: read_answer(answers.ClusterStatus, tree),
        )  # fmt: skip

    def health(self) -> Call[answers.NodeHealth]:
        """GET /mesh/health."""
        return Call(
            method="GET", path="/mesh/health",
            read=lambda tree: read_answer(answers.NodeHealth, tree),
        )  # fmt: skip

    def forget(self, name: str) -> Call[None]:
        """DELETE /mesh/members/{name}."""
        return Call(method="DELETE", path=f"/mesh/members/{_quoted(name)}", read=_nothing)

    def leave(self) -> Call[None]:
        """POST /mesh/shutdown."""
        return Call(method="POST", path="/mesh/shutdown", read=_nothing)

    def workers(self) -> Call[tuple[answers.WorkerView, ...]]:
        """GET /mesh/workers."""
        return Call(
            method="GET", path="/mesh/workers",
            read=lambda tree: read_answers(answers.WorkerView, tree),
        )  # fmt: skip

    def put_worker(
        self, worker_id: str, *, model_id: str, url: str, health: bool, load: float,
        ttl_s: float | None,
    ) -> Call[answers.WorkerView]:  # fmt: skip
        """PUT /mesh/workers/{worker_id}."""
        body = {"model_id": model_id, "url": url, "health": health, "load": load}
        return Call(
            method="PUT",
            path=f"/mesh/workers/{_quoted(worker_id)}",
            body=body if ttl_s is None else {**body, "ttl_s": ttl_s},
            read=lambda tree: read_answer(answers.WorkerView, tree),
        )

    def change_workers(
        self, *, put: Iterable[answers.WorkerView], delete: Iterable[str]
    ) -> Call[None]:
        """PATCH /mesh/workers."""
        wanted = ("worker_id", "model_id", "url", "health", "load")
        written = [
            {name: getattr(worker, name) for name in wanted}
            | ({} if worker.ttl_s is None else {"ttl_s": worker.ttl_s})
            for worker in put
        ]
        body = {"put": written, "delete": list(delete)}
        return Call(method="PATCH", path="/mesh/workers", body=body, read=_nothing)

    def delete_worker(self, worker_id: str) -> Call[None]:
        """DELETE /mesh/workers/{worker_id}."""
        return Call(method="DELETE", path=f"/mesh/workers/{_quoted(worker_id)}", read=_nothing)

    def policies(self) -> Call[tuple[answers.PolicyView, ...]]:
        """GET /mesh/policies."""
        return Call(
            method="GET", path="/mesh/policies",
            read=lambda tree: read_answers(answers.PolicyView, tree),
        )  # fmt: skip

    def put_policy(
        self, model_id: str, *, policy_type: str, config: str
    ) -> Call[answers.PolicyView]:
        """PUT /mesh/policies/{model_id}."""
        return Call(
            method="PUT",
            path=f"/mesh/policies/{_quoted(model_id)}",
            body={"policy_type": policy_type, "config": config},
            read=lambda tree: read_answer(answers.PolicyView, tree),
        )

    def config_keys(self) -> Call[tuple[str, ...]]:
        """GET /mesh/config."""
        return Call(method="GET", path="/mesh/config", read=lambda tree: tuple(tree["keys"]))

    def get_config(self, key: str) -> Call[bytes]:
        """GET /mesh/config/{key}."""
        return Call(method="GET", path=f"/mesh/config/{_quoted(key)}", read=_hex)

    def set_config(self, key: str, value: bytes) -> Call[None]:
        """POST /mesh/config."""
        body = {"key": key, "value": value.hex()}
        return Call(method="POST", path="/mesh/config", body=body, read=_nothing)

    def change_config(self, *, put: Mapping[str, bytes], delete: Iterable[str]) -> Call[None]:
        """PATCH /mesh/config."""
        written = [{"key": key, "value": value.hex()} for key, value in put.items()]
        body = {"put": written, "delete": list(delete)}
        return Call(method="PATCH", path="/mesh/config", body=body, read=_nothing)

    def delete_config(self, key: str) -> Call[None]:
        """DELETE /mesh/config/{key}."""
        return Call(method="DELETE", path=f"/mesh/config/{_quoted(key)}", read=_nothing)

    def global_limit(self) -> Call[answers.GlobalLimit]:
        """GET /mesh/rate-limit."""
        return Call(
            method="GET", path="/mesh/rate-limit",
            read=lambda tree: read_answer(answers.GlobalLimit, tree),
        )  # fmt: skip

    def limit_usage(self, key: str) -> Call[answers.LimitUsage]:
        """GET /mesh/rate-limit/stats."""
        return Call(
            method="GET", path=f"/mesh/rate-limit/stats?key={_quoted(key)}",
            read=lambda tree: read_answer(answers.LimitUsage, tree),
        )  # fmt: skip

    def set_limit(self, key: str, limit_per_second: int) -> Call[None]:
        """POST /mesh/rate-limit for the global one, and the configuration of the others."""
        limit = {"limit_per_second": limit_per_second}
        if key == "global":
            return Call(method="POST", path="/mesh/rate-limit", body=limit, read=_nothing)
        return self.set_config(_LIMIT_KEY + key, json.dumps(limit).encode())

    def acquire(self, key: str, *, cost: int) -> Call[answers.Admission]:
        """POST /mesh/rate-limit/acquire; a refusal is an answer and no error."""
        return Call(
            method="POST",
            path="/mesh/rate-limit/acquire",
            body={"key": key, "cost": cost},
            statuses=(200, 429),
            read=lambda tree: read_answer(answers.Admission, tree),
        )

    def acquire_many(self, costs: Mapping[str, int]) -> Call[answers.Admission]:
        """POST /mesh/rate-limit/acquire with several keys, likewise."""
        return Call(
            method="POST",
            path="/mesh/rate-limit/acquire",
            body={"keys": [{"key": key, "cost": cost} for key, cost in costs.items()]},
            statuses=(200, 429),
            read=lambda tree: read_answer(answers.Admission, tree),
        )

    def peek(self, key: str, *, cost: int) -> Call[answers.Admission]:
        """POST /mesh/rate-limit/peek."""
        return Call(
            method="POST",
            path="/mesh/rate-limit/peek",
            body={"key": key, "cost": cost},
            read=lambda tree: read_answer(answers.Admission, tree),
        )

    def refund(self, key: str, *, cost: int) -> Call[None]:
        """POST /mesh/rate-limit/refund."""
        body = {"key": key, "cost": cost}
        return Call(method="POST", path="/mesh/rate-limit/refund", body=body, read=_nothing)

    def reset_limit(self, key: str) -> Call[None]:
        """POST /mesh/rate-limit/reset."""
        body = {"key": key}
        return Call(method="POST", path="/mesh/rate-limit/reset", body=body, read=_nothing)

    def reserve(self, key: str, *, estimate: int, lease_s: float) -> Call[answers.ReservedUnits]:
        """POST /mesh/rate-limit/reserve; a refusal is an answer and no error."""
        return Call(
            method="POST",
            path="/mesh/rate-limit/reserve",
            body={"key": key, "estimate": estimate, "lease_s": lease_s},
            statuses=(200, 429),
            read=lambda tree: read_answer(answers.ReservedUnits, tree),
        )

    def settle(self, reservation_id: str, *, actual: int) -> Call[None]:
        """POST /mesh/rate-limit/settle."""
        body = {"reservation_id": reservation_id, "actual": actual}
        return Call(method="POST", path="/mesh/rate-limit/settle", body=body, read=_nothing)

    def acquire_slot(
        self, key: str, *, limit: int, wait_s: float, lease_s: float
    ) -> Call[answers.SlotLease]:
        """POST /mesh/slots/acquire; a refusal is an answer and no error."""
        return Call(
            method="POST",
            path="/mesh/slots/acquire",
            body={"key": key, "limit": limit, "wait_s": wait_s, "lease_s": lease_s},
            statuses=(200, 429),
            read=lambda tree: read_answer(answers.SlotLease, tree),
        )

    def renew_slot(self, slot_id: str, *, lease_s: float | None) -> Call[None]:
        """POST /mesh/slots/renew."""
        body: dict[str, Any] = {"slot_id": slot_id}
        if lease_s is not None:
            body["lease_s"] = lease_s
        return Call(method="POST", path="/mesh/slots/renew", body=body, read=_nothing)

    def release_slot(self, slot_id: str) -> Call[None]:
        """POST /mesh/slots/release."""
        body = {"slot_id": slot_id}
        return Call(method="POST", path="/mesh/slots/release", body=body, read=_nothing)

    def limit_rules(self) -> Call[tuple[answers.LimitRuleView, ...]]:
        """GET /mesh/limits."""
        return Call(
            method="GET", path="/mesh/limits",
            read=lambda tree: read_answers(answers.LimitRuleView, tree),
        )  # fmt: skip

    def put_limit_rule(
        self, name: str, *, limits: Iterable[str], pattern: str | None
    ) -> Call[answers.LimitRuleView]:
        """PUT /mesh/limits/{name}."""
        body: dict[str, object] = {"limits": list(limits)}
        if pattern is not None:
            body["pattern"] = pattern
        return Call(
            method="PUT",
            path=f"/mesh/limits/{_quoted(name)}",
            body=body,
            read=lambda tree: read_answer(answers.LimitRuleView, tree),
        )

    def delete_limit_rule(self, name: str) -> Call[None]:
        """DELETE /mesh/limits/{name}."""
        return Call(method="DELETE", path=f"/mesh/limits/{_quoted(name)}", read=_nothing)

    def route(self, model_id: str, text: str) -> Call[answers.RoutedTo]:
        """POST /mesh/route/{model_id}."""
        return Call(
            method="POST",
            path=f"/mesh/route/{_quoted(model_id)}",
            body={"text": text},
            read=lambda tree: read_answer(answers.RoutedTo, tree),
        )

    def first_token(self, model_id: str, request_id: str) -> Call[None]:
        """POST /mesh/route/{model_id}/first_token."""
        path, body = f"/mesh/route/{_quoted(model_id)}/first_token", {"request_id": request_id}
        return Call(method="POST", path=path, body=body, read=_nothing)

    def renew_request(
        self, model_id: str, request_id: str, *, decoded_tokens: int | None
    ) -> Call[None]:
        """POST /mesh/route/{model_id}/renew."""
        body: dict[str, Any] = {"request_id": request_id}
        if decoded_tokens is not None:
            body["decoded_tokens"] = decoded_tokens
        path = f"/mesh/route/{_quoted(model_id)}/renew"
        return Call(method="POST", path=path, body=body, read=_nothing)

    def complete(self, model_id: str, request_id: str) -> Call[None]:
        """POST /mesh/route/{model_id}/complete."""
        path, body = f"/mesh/route/{_quoted(model_id)}/complete", {"request_id": request_id}
        return Call(method="POST", path=path, body=body, read=_nothing)

    def events(self, *, has_overviews: bool) -> Call[None]:
        """GET /mesh/events; what comes is read by `read_events`."""
        path = f"/mesh/events?overview={int(has_overviews)}"
        return Call(method="GET", path=path, statuses=(), read=_nothing)


def read_events(lines: Iterable[str]) -> Iterator[answers.ServerEvent]:
    """Read server-sent events, line by line; comments are passed over.

    Args:
        lines: without their ends.
    """
    kind = data = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data = value
        elif not line and data:
            yield answers.ServerEvent(kind=kind, data=json.loads(data))
            kind = data = ""
