"""The two clients: the same calls, sent in two ways."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from meshlib_server.client.answers import (
    Admission,
    ClusterStatus,
    GlobalLimit,
    LimitRuleView,
    LimitUsage,
    NodeHealth,
    PolicyView,
    ReservedUnits,
    RoutedTo,
    ServerEvent,
    SlotLease,
    WorkerView,
)
from meshlib_server.client.calls import Call, Calls, read_events
from meshlib_server.client.errors import UnreachableError

if TYPE_CHECKING:
    import httpx2

__all__ = ["AsyncMeshClient", "MeshClient"]

Answer = TypeVar("Answer")

_CALLS: Final = Calls()


def _library() -> Any:
    try:
        import httpx2
    except ImportError:
        raise ImportError(
            "the client needs the extra `client`: pip install 'meshlib-crdt[client]'"
        ) from None
    return httpx2


def _options(
    address: str, token: str | None, timeout_s: float, tls: ssl.SSLContext | None
) -> dict[str, Any]:
    return {
        "base_url": address.rstrip("/") if "://" in address else f"http://{address}",
        "headers": {} if token is None else {"Authorization": f"Bearer {token}"},
        "timeout": timeout_s,
        "trust_env": False,
        "verify": True if tls is None and address.lower().startswith("https:") else tls or False,
    }


def _unreachable(address: object, error: Exception) -> UnreachableError:
    return UnreachableError(f"{address} cannot be reached: {error or type(error).__name__}")


class MeshClient:
    """A client of one node; each call waits for its answer.

    Every call raises `ApiError` when the server says no, with nothing changed, and
    `UnreachableError` when nobody answers.

    Args:
        address: `http://host:port`, or `https://`, or `host:port` for the first of these.
        token: one of the server's tokens; None: none.
        timeout_s: longest wait for a part of an answer.
        tls: for `https://`; None: the system's authorities.

    Raises:
        ImportError: the extra `client` is not installed.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        timeout_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._httpx = _library()
        self._client: httpx2.Client = self._httpx.Client(**_options(address, token, timeout_s, tls))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._client.close()

    def _send(self, call: Call[Answer]) -> Answer:
        try:
            response = self._client.request(call.method, call.path, json=call.body)
        except (self._httpx.TransportError, self._httpx.InvalidURL) as error:
            raise _unreachable(self._client.base_url, error) from error
        retry_after = response.headers.get("Retry-After")
        return call.answer(response.status_code, response.content, retry_after=retry_after)

    def status(self) -> ClusterStatus:
        """Return the members, and how much is in the stores."""
        return self._send(_CALLS.status())

    def health(self) -> NodeHealth:
        """Return how the cluster looks from the node."""
        return self._send(_CALLS.health())

    def forget(self, name: str) -> None:
        """Forget a member that is gone for good; needs the scope `admin`."""
        self._send(_CALLS.forget(name))

    def leave(self) -> None:
        """Let the node leave its cluster and end; needs the scope `admin`."""
        self._send(_CALLS.leave())

    def workers(self) -> tuple[WorkerView, ...]:
        """Return all workers, by their ids."""
        return self._send(_CALLS.workers())

    def put_worker(
        self, worker_id: str, *, model_id: str, url: str, health: bool, load: float,
        ttl_s: float | None = None,
    ) -> WorkerView:  # fmt: skip
        """Write a worker; without `ttl_s`, in seconds, it stays as it was written."""
        return self._send(
            _CALLS.put_worker(
                worker_id, model_id=model_id, url=url, health=health, load=load, ttl_s=ttl_s
            )
        )

    def change_workers(self, *, put: Iterable[WorkerView] = (), delete: Iterable[str] = ()) -> None:
        """Write and remove up to 256 workers each, all of them or none; `version` is not sent."""
        self._send(_CALLS.change_workers(put=put, delete=delete))

    def delete_worker(self, worker_id: str) -> None:
        """Remove a worker, and all it had cached."""
        self._send(_CALLS.delete_worker(worker_id))

    def policies(self) -> tuple[PolicyView, ...]:
        """Return all policies, by their models."""
        return self._send(_CALLS.policies())

    def put_policy(self, model_id: str, *, policy_type: str, config: str = "{}") -> PolicyView:
        """Write the policy of a model; `config` is JSON."""
        return self._send(_CALLS.put_policy(model_id, policy_type=policy_type, config=config))

    def config_keys(self) -> tuple[str, ...]:
        """Return the keys of the configuration, sorted."""
        return self._send(_CALLS.config_keys())

    def get_config(self, key: str) -> bytes:
        """Return the value of a key."""
        return self._send(_CALLS.get_config(key))

    def set_config(self, key: str, value: bytes) -> None:
        """Write a key."""
        self._send(_CALLS.set_config(key, value))

    def change_config(
        self, *, put: Mapping[str, bytes] | None = None, delete: Iterable[str] = ()
    ) -> None:
        """Write and remove up to 256 keys each: all of them, or none."""
        self._send(_CALLS.change_config(put=put or {}, delete=delete))

    def delete_config(self, key: str) -> None:
        """Remove a key."""
        self._send(_CALLS.delete_config(key))

    def global_limit(self) -> GlobalLimit:
        """Return the global limit."""
        return self._send(_CALLS.global_limit())

    def limit_usage(self, key: str = "global") -> LimitUsage:
        """Return how much of a limit is used."""
        return self._send(_CALLS.limit_usage(key))

    def set_limit(self, key: str, limit_per_second: int) -> None:
        """Set a limit, in units a second for the whole cluster; 0 switches it off."""
        self._send(_CALLS.set_limit(key, limit_per_second))

    def acquire(self, key: str = "global", *, cost: int = 1) -> Admission:
        """Decide one request, and count it when it is admitted."""
        return self._send(_CALLS.acquire(key, cost=cost))

    def acquire_many(self, costs: Mapping[str, int]) -> Admission:
        """Decide on the limits of several keys: all or nothing."""
        return self._send(_CALLS.acquire_many(costs))

    def peek(self, key: str = "global", *, cost: int = 1) -> Admission:
        """Tell what would be decided, and count nothing."""
        return self._send(_CALLS.peek(key, cost=cost))

    def refund(self, key: str, *, cost: int = 1) -> None:
        """Give units back that were admitted and not used."""
        self._send(_CALLS.refund(key, cost=cost))

    def reset_limit(self, key: str) -> None:
        """Let nothing of a key's limits be used any more."""
        self._send(_CALLS.reset_limit(key))

    def reserve(self, key: str, *, estimate: int, lease_s: float = 600.0) -> ReservedUnits:
        """Count an estimate; `settle` corrects it, at the same node."""
        return self._send(_CALLS.reserve(key, estimate=estimate, lease_s=lease_s))

    def settle(self, reservation_id: str, *, actual: int) -> None:
        """Count what was really used in the place of an estimate."""
        self._send(_CALLS.settle(reservation_id, actual=actual))

    def acquire_slot(
        self, key: str, *, limit: int, wait_s: float = 0.0, lease_s: float = 30.0
    ) -> SlotLease:
        """Take one of a key's slots in the whole cluster; held until released, or the lease ends.

        Args:
            key: whose requests they are.
            limit: how many of them run at once, on all nodes together.
            wait_s: seconds to wait while all are used; less than the client's `timeout_s`.
            lease_s: seconds for which it is held unless it is renewed, at the same node.
        """
        return self._send(_CALLS.acquire_slot(key, limit=limit, wait_s=wait_s, lease_s=lease_s))

    def renew_slot(self, slot_id: str, *, lease_s: float | None = None) -> None:
        """Hold a slot for another lease; an `ApiError` of 404 says that it is held no more."""
        self._send(_CALLS.renew_slot(slot_id, lease_s=lease_s))

    def release_slot(self, slot_id: str) -> None:
        """Give a slot back."""
        self._send(_CALLS.release_slot(slot_id))

    def limit_rules(self) -> tuple[LimitRuleView, ...]:
        """Return the rules in force, by name."""
        return self._send(_CALLS.limit_rules())

    def put_limit_rule(
        self, name: str, *, limits: Iterable[str], pattern: str | None = None
    ) -> LimitRuleView:
        """Set limits for the keys of a pattern; without one the name is the pattern."""
        return self._send(_CALLS.put_limit_rule(name, limits=limits, pattern=pattern))

    def delete_limit_rule(self, name: str) -> None:
        """Remove a rule."""
        self._send(_CALLS.delete_limit_rule(name))

    def route(self, model_id: str, text: str) -> RoutedTo:
        """Choose a worker for a prompt."""
        return self._send(_CALLS.route(model_id, text))

    def first_token(self, model_id: str, request_id: str) -> None:
        """Say that a request is prefilled: its first token has come."""
        self._send(_CALLS.first_token(model_id, request_id))

    def renew_request(
        self, model_id: str, request_id: str, *, decoded_tokens: int | None = None
    ) -> None:
        """Say that a long request goes on, and how many tokens it has decoded so far."""
        self._send(_CALLS.renew_request(model_id, request_id, decoded_tokens=decoded_tokens))

    def complete(self, model_id: str, request_id: str) -> None:
        """Say that a request has ended, however it did."""
        self._send(_CALLS.complete(model_id, request_id))

    def events(self, *, has_overviews: bool = False) -> Iterator[ServerEvent]:
        """Yield what happens to the node, an overview first, until the stream ends.

        Args:
            has_overviews: whether another overview follows each second without an event.
        """
        call = _CALLS.events(has_overviews=has_overviews)
        try:
            with self._client.stream("GET", call.path) as response:
                if response.status_code != 200:
                    content = response.read()
                    call.answer(response.status_code, content, retry_after=None)
                yield from read_events(response.iter_lines())
        except self._httpx.TransportError as error:
            raise _unreachable(self._client.base_url, error) from error


class AsyncMeshClient:
    """A client of one node, for asyncio.

    Every call raises `ApiError` when the server says no, with nothing changed, and
    `UnreachableError` when nobody answers.

    Args:
        address: `http://host:port`, or `https://`, or `host:port` for the first of these.
        token: one of the server's tokens; None: none.
        timeout_s: longest wait for a part of an answer.
        tls: for `https://`; None: the system's authorities.

    Raises:
        ImportError: the extra `client` is not installed.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        timeout_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._httpx = _library()
        self._client: httpx2.AsyncClient = self._httpx.AsyncClient(
            **_options(address, token, timeout_s, tls)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        await self._client.aclose()

    async def _send(self, call: Call[Answer]) -> Answer:
        try:
            response = await self._client.request(call.method, call.path, json=call.body)
        except (self._httpx.TransportError, self._httpx.InvalidURL) as error:
            raise _unreachable(self._client.base_url, error) from error
        retry_after = response.headers.get("Retry-After")
        return call.answer(response.status_code, response.content, retry_after=retry_after)

    async def status(self) -> ClusterStatus:
        """Return the members, and how much is in the stores."""
        return await self._send(_CALLS.status())

    async def health(self) -> NodeHealth:
        """Return how the cluster looks from the node."""
        return await self._send(_CALLS.health())

    async def forget(self, name: str) -> None:
        """Forget a member that is gone for good; needs the scope `admin`."""
        await self._send(_CALLS.forget(name))

    async def leave(self) -> None:
        """Let the node leave its cluster and end; needs the scope `admin`."""
        await self._send(_CALLS.leave())

    async def workers(self) -> tuple[WorkerView, ...]:
        """Return all workers, by their ids."""
        return await self._send(_CALLS.workers())

    async def put_worker(
        self, worker_id: str, *, model_id: str, url: str, health: bool, load: float,
        ttl_s: float | None = None,
    ) -> WorkerView:  # fmt: skip
        """Write a worker; without `ttl_s`, in seconds, it stays as it was written."""
        return await self._send(
            _CALLS.put_worker(
                worker_id, model_id=model_id, url=url, health=health, load=load, ttl_s=ttl_s
            )
        )

    async def change_workers(
        self, *, put: Iterable[WorkerView] = (), delete: Iterable[str] = ()
    ) -> None:
        """Write and remove up to 256 workers each, all of them or none; `version` is not sent."""
        await self._send(_CALLS.change_workers(put=put, delete=delete))

    async def delete_worker(self, worker_id: str) -> None:
        """Remove a worker, and all it had cached."""
        await self._send(_CALLS.delete_worker(worker_id))

    async def policies(self) -> tuple[PolicyView, ...]:
        """Return all policies, by their models."""
        return await self._send(_CALLS.policies())

    async def put_policy(
        self, model_id: str, *, policy_type: str, config: str = "{}"
    ) -> PolicyView:
        """Write the policy of a model; `config` is JSON."""
        return await self._send(_CALLS.put_policy(model_id, policy_type=policy_type, config=config))

    async def config_keys(self) -> tuple[str, ...]:
        """Return the keys of the configuration, sorted."""
        return await self._send(_CALLS.config_keys())

    async def get_config(self, key: str) -> bytes:
        """Return the value of a key."""
        return await self._send(_CALLS.get_config(key))

    async def set_config(self, key: str, value: bytes) -> None:
        """Write a key."""
        await self._send(_CALLS.set_config(key, value))

    async def change_config(
        self, *, put: Mapping[str, bytes] | None = None, delete: Iterable[str] = ()
    ) -> None:
        """Write and remove up to 256 keys each: all of them, or none."""
        await self._send(_CALLS.change_config(put=put or {}, delete=delete))

    async def delete_config(self, key: str) -> None:
        """Remove a key."""
        await self._send(_CALLS.delete_config(key))

    async def global_limit(self) -> GlobalLimit:
        """Return the global limit."""
        return await self._send(_CALLS.global_limit())

    async def limit_usage(self, key: str = "global") -> LimitUsage:
        """Return how much of a limit is used."""
        return await self._send(_CALLS.limit_usage(key))

    async def set_limit(self, key: str, limit_per_second: int) -> None:
        """Set a limit, in units a second for the whole cluster; 0 switches it off."""
        await self._send(_CALLS.set_limit(key, limit_per_second))

    async def acquire(self, key: str = "global", *, cost: int = 1) -> Admission:
        """Decide one request, and count it when it is admitted."""
        return await self._send(_CALLS.acquire(key, cost=cost))

    async def acquire_many(self, costs: Mapping[str, int]) -> Admission:
        """Decide on the limits of several keys: all or nothing."""
        return await self._send(_CALLS.acquire_many(costs))

    async def peek(self, key: str = "global", *, cost: int = 1) -> Admission:
        """Tell what would be decided, and count nothing."""
        return await self._send(_CALLS.peek(key, cost=cost))

    async def refund(self, key: str, *, cost: int = 1) -> None:
        """Give units back that were admitted and not used."""
        await self._send(_CALLS.refund(key, cost=cost))

    async def reset_limit(self, key: str) -> None:
        """Let nothing of a key's limits be used any more."""
        await self._send(_CALLS.reset_limit(key))

    async def reserve(self, key: str, *, estimate: int, lease_s: float = 600.0) -> ReservedUnits:
        """Count an estimate; `settle` corrects it, at the same node."""
        return await self._send(_CALLS.reserve(key, estimate=estimate, lease_s=lease_s))

    async def settle(self, reservation_id: str, *, actual: int) -> None:
        """Count what was really used in the place of an estimate."""
        await self._send(_CALLS.settle(reservation_id, actual=actual))

    async def acquire_slot(
        self, key: str, *, limit: int, wait_s: float = 0.0, lease_s: float = 30.0
    ) -> SlotLease:
        """Take one of a key's slots in the whole cluster; held until released, or the lease ends.

        Args:
            key: whose requests they are.
            limit: how many of them run at once, on all nodes together.
            wait_s: seconds to wait while all are used; less than the client's `timeout_s`.
            lease_s: seconds for which it is held unless it is renewed, at the same node.
        """
        return await self._send(
            _CALLS.acquire_slot(key, limit=limit, wait_s=wait_s, lease_s=lease_s)
        )

    async def renew_slot(self, slot_id: str, *, lease_s: float | None = None) -> None:
        """Hold a slot for another lease; an `ApiError` of 404 says that it is held no more."""
        await self._send(_CALLS.renew_slot(slot_id, lease_s=lease_s))

    async def release_slot(self, slot_id: str) -> None:
        """Give a slot back."""
        await self._send(_CALLS.release_slot(slot_id))

    async def limit_rules(self) -> tuple[LimitRuleView, ...]:
        """Return the rules in force, by name."""
        return await self._send(_CALLS.limit_rules())

    async def put_limit_rule(
        self, name: str, *, limits: Iterable[str], pattern: str | None = None
    ) -> LimitRuleView:
        """Set limits for the keys of a pattern; without one the name is the pattern."""
        return await self._send(_CALLS.put_limit_rule(name, limits=limits, pattern=pattern))

    async def delete_limit_rule(self, name: str) -> None:
        """Remove a rule."""
        await self._send(_CALLS.delete_limit_rule(name))

    async def route(self, model_id: str, text: str) -> RoutedTo:
        """Choose a worker for a prompt."""
        return await self._send(_CALLS.route(model_id, text))

    async def first_token(self, model_id: str, request_id: str) -> None:
        """Say that a request is prefilled: its first token has come."""
        await self._send(_CALLS.first_token(model_id, request_id))

    async def renew_request(
        self, model_id: str, request_id: str, *, decoded_tokens: int | None = None
    ) -> None:
        """Say that a long request goes on, and how many tokens it has decoded so far."""
        await self._send(_CALLS.renew_request(model_id, request_id, decoded_tokens=decoded_tokens))

    async def complete(self, model_id: str, request_id: str) -> None:
        """Say that a request has ended, however it did."""
        await self._send(_CALLS.complete(model_id, request_id))

    async def events(self, *, has_overviews: bool = False) -> AsyncIterator[ServerEvent]:
        """Yield what happens to the node, an overview first, until the stream ends.

        Args:
            has_overviews: whether another overview follows each second without an event.
        """
        call = _CALLS.events(has_overviews=has_overviews)
        try:
            async with self._client.stream("GET", call.path) as response:
                if response.status_code != 200:
                    content = await response.aread()
                    call.answer(response.status_code, content, retry_after=None)
                waiting: list[str] = []
                async for line in response.aiter_lines():
                    waiting.append(line)
                    if not line:
                        for event in read_events(waiting):
                            yield event
                        waiting.clear()
        except self._httpx.TransportError as error:
            raise _unreachable(self._client.base_url, error) from error
