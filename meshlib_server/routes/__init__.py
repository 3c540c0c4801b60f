"""The endpoints, one module for each noun. Thin: parse, call the library, answer.

cluster.py     /status and /health
rate_limit.py  /rate-limit, its statistics and its busiest keys
decisions.py   /rate-limit/acquire and the other verbs
limit_rules.py  /limits
slots.py       /slots
routing.py     /route and /trees
workers.py     /workers
policies.py    /policies
app_config.py  /config
events.py      /events, and the page /mesh/ui
lifecycle.py   /shutdown
probes.py      /livez and /readyz, beside the prefixes
metrics.py     /metrics, likewise
description.py  /openapi.json and /mesh/docs
"""

from __future__ import annotations

from starlette.routing import BaseRoute

from meshlib_server.routes import (
    app_config,
    cluster,
    decisions,
    events,
    lifecycle,
    limit_rules,
    policies,
    rate_limit,
    routing,
    slots,
    workers,
)

__all__ = ["PREFIXES", "api_routes"]

PREFIXES = ("/mesh", "/ha")
"""Where the endpoints are found: as specified, and as the upstream binary serves them."""

_MODULES = (
    routing, decisions, slots, cluster, rate_limit, limit_rules, workers, policies, app_config,
    events, lifecycle,
)  # fmt: skip


def api_routes() -> list[BaseRoute]:
    """Return every HTTP route under each prefix, the most frequent first."""
    return [route for prefix in PREFIXES for module in _MODULES for route in module.routes(prefix)]
