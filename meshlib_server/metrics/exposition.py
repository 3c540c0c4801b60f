"""The families of a scrape, in the format that the scraper asks for.

prometheus-client takes some 50 ms to be imported, which neither a start nor the event loop is to
wait for: it is imported in a thread, when somebody scrapes for the first time.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from meshlib_server.metrics.names import PREFIX, Kind
from meshlib_server.metrics.readings import Family
from meshlib_server.metrics.requests import BUCKETS_S

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

__all__ = ["render"]


async def render(families: Sequence[Family], *, accept: str) -> tuple[bytes, str]:
    """Write a scrape: the families given, and what the process says of itself.

    Args:
        families: what was read.
        accept: the scraper's `Accept` header.

    Returns:
        the text, and its content type.
    """
    await asyncio.to_thread(importlib.import_module, "prometheus_client")
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    return encode(_registry_of(families)), content_type


class _Families:
    """A collector of what was read already."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def describe(self) -> list[Any]:
        """Say nothing beforehand: what there is depends on what is there."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield each family as prometheus-client has it."""
        for family in self._families:
            yield _metric_of(family)


def _metric_of(family: Family) -> Metric:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    name, labels = PREFIX + family.name, family.labels
    if family.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(name, family.text, labels=labels)
        for values, duration in family.durations.items():
            counts = list(itertools.accumulate(duration.buckets))
            bounds = [*(str(bound) for bound in BUCKETS_S), "+Inf"]
            buckets = list(zip(bounds, counts, strict=True))
            histogram.add_metric(values, buckets=buckets, sum_value=duration.sum_s)
        return histogram
    make = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = make(name, family.text, labels=labels)
    for values, value in family.samples.items():
        metric.add_metric(values, value)
    return metric


def _registry_of(families: Sequence[Family]) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
