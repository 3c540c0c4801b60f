"""What a process counts, as Prometheus reads it: `GET /metrics`.

names.py       the name and the meaning of each counter of the library
requests.py    what was asked for, how it was answered, and how long that took
readings.py    the families of one scrape, read off the node and what runs beside it
exposition.py  the families in the format that the scraper asks for, by prometheus-client

Rule: whoever reads takes what there is, and never waits, locks or changes anything; and the labels
of a scrape are bounded, whatever callers ask for.
"""

from __future__ import annotations

from meshlib_server.metrics.exposition import render
from meshlib_server.metrics.readings import Sources, read_families
from meshlib_server.metrics.requests import CountedRequests, RequestCounters

__all__ = ["CountedRequests", "RequestCounters", "Sources", "read_families", "render"]
