"""What a router is told: one JSON file, of which everything but the names has a default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import field, frozen


@frozen(kw_only=True)
class Settings:
    """Of one router.

    Args:
        name: unique among the routers.
        port: where it serves HTTP.
        gossip: `host:port` where the other routers reach it.
        seeds: where it reaches them; its own may be among them.
        model: the one model that its workers serve.
        workers: their base URLs, by name; on all routers the same.
        keys: the API keys that are let in.
        limits: for each of them, in all routers together, in a minute and at once.
        max_tokens: what a request that does not say may generate.
        queue_s: how long a request waits while its key has all its parallel ones running.
        owner_timeout_s: how long a request waits for the router that owns its key; after it has
            died the next one owns it within three seconds or so.
        drain_s: how long it still takes requests, once it says that it is to be left alone.
    """

    name: str
    port: int
    gossip: str
    model: str
    workers: dict[str, str]
    keys: list[str] = field(repr=False)
    host: str = "127.0.0.1"
    seeds: list[str] = field(factory=list)
    requests_per_minute: int = 60
    tokens_per_minute: int = 20_000
    parallel: int = 4
    max_tokens: int = 256
    characters_per_token: float = 3.0
    queue_s: float = 5.0
    owner_timeout_s: float = 8.0
    connect_timeout_s: float = 1.0
    silence_timeout_s: float = 60.0
    probe_interval_s: float = 0.25
    probe_timeout_s: float = 3.0
    no_worker_timeout_s: float = 5.0
    drain_s: float = 1.0
    token: str | None = field(default=None, repr=False)

    @classmethod
    def load(cls, path: str) -> Settings:
        """Read a file; a key that it does not know is a TypeError."""
        tree: dict[str, Any] = json.loads(Path(path).read_text())
        return cls(**tree)
