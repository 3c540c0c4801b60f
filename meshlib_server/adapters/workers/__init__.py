"""Workers that nobody tells of by the API: they are read from a file, DNS, or Kubernetes.

following.py   what was found is written into the mesh, and what has gone is removed
sources.py     a file, and names of which every address is a worker
kubernetes.py  the EndpointSlices of services: extra `kubernetes`
"""

from __future__ import annotations

from meshlib_server.adapters.workers.following import WorkersPlug, plug
from meshlib_server.adapters.workers.kubernetes import KubernetesWorkers
from meshlib_server.adapters.workers.sources import DnsWorkers, FileWorkers, Found, WorkerSource

__all__ = [
    "DnsWorkers",
    "FileWorkers",
    "Found",
    "KubernetesWorkers",
    "WorkerSource",
    "WorkersPlug",
    "plug",
]
