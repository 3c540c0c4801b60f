"""Which endpoints a request may go to, in the order in which they are to be tried."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from meshlib import MeshRuntime, RouteDecision, WorkerState
from meshlib_server.adapters.openai import Prompt

__all__ = ["Choice", "choose", "endpoint_of", "redecide"]

ENDPOINTS_MAX: Final = 3
"""How many are named: the first, and those to be tried when it fails."""


@frozen
class Choice:
    """Where a request goes.

    Args:
        decision: what was decided; None when nothing is known of the prompt's model.
        worker_id: the first worker.
        endpoints: its address and those of the next ones, `ip:port`.
        text: the prompt.
        salt: what the prefix depends on beside its text.
    """

    decision: RouteDecision | None
    worker_id: str
    endpoints: tuple[str, ...]
    text: str = ""
    salt: str = ""


@functools.lru_cache(maxsize=8192)
def endpoint_of(url: str) -> str:
    """Return the `host:port` of a worker's URL; empty for one without."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError:
        return ""
    host = parts.hostname or ""
    if not host or not port:
        return ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def choose(
    mesh: MeshRuntime, prompt: Prompt | None, subset: Collection[str] | None
) -> Choice | None:
    """Choose for a request, by its prompt where that is known, and by load where it is not.

    A model that no worker has is taken for an adapter of the only model that there is. Where
    there are several it has no endpoint.

    Args:
        mesh: the node.
        prompt: what is asked for; None for what could not be read.
        subset: the addresses that may be chosen; None: any.

    Returns:
        None when nobody is eligible.

    Raises:
        MeshError: the node cannot choose now.
    """
    model, salt, text = "", "", ""
    if prompt is not None:
        model, text = prompt.model, prompt.text
    workers: Sequence[WorkerState] = mesh.sync.workers.of_model(model) if model else ()
    if not workers:
        everybody = mesh.sync.workers.all()
        models = {worker.model_id for worker in everybody}
        if model and len(models) > 1:
            return None
        salt, model, workers = model, (models.pop() if len(models) == 1 else ""), everybody
    eligible = {
        worker.worker_id: endpoint
        for worker in workers
        if worker.health
        and (endpoint := endpoint_of(worker.url))
        and (subset is None or endpoint in subset)
    }
    if not model:
        return _by_load(mesh, eligible)
    candidates = None if len(eligible) == len(workers) else frozenset(eligible)
    first = mesh.route(model, text, candidates=candidates, salt=salt, record=False)
    if first.worker_id is None:
        return None
    others = _in_order(mesh, eligible, first.worker_id)
    names = (first.worker_id, *others)[:ENDPOINTS_MAX]
    endpoints = tuple(dict.fromkeys(eligible[name] for name in names))
    return Choice(first, first.worker_id, endpoints, text, salt)


def _in_order(mesh: MeshRuntime, eligible: Collection[str], first: str) -> list[str]:
    load = mesh.sync.load
    return sorted((name for name in eligible if name != first), key=load.request_count)


def _by_load(mesh: MeshRuntime, eligible: dict[str, str]) -> Choice | None:
    names = _in_order(mesh, eligible, "")[:ENDPOINTS_MAX]
    if not names:
        return None
    return Choice(None, names[0], tuple(dict.fromkeys(eligible[name] for name in names)))


def redecide(mesh: MeshRuntime, choice: Choice, endpoint: str) -> Choice | None:
    """Return the choice as it has come true: another endpoint than the first has served it.

    Args:
        mesh: the node.
        choice: what was chosen.
        endpoint: who has served.

    Returns:
        None when no worker is known by that address.
    """
    decision = choice.decision
    model = "" if decision is None else decision.model_id
    served = [one for one in mesh.sync.workers.all() if endpoint_of(one.url) == endpoint]
    if not served:
        return None
    worker = min(served, key=lambda one: (one.model_id != model, one.worker_id))
    if decision is not None:
        # Of another model, or not healthy any more, it is no candidate.
        decision = mesh.route(
            model, choice.text, candidates=(worker.worker_id,), salt=choice.salt, record=False
        )
    return Choice(decision or None, worker.worker_id, (endpoint,))
