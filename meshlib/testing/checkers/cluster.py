"""What the parts of the simulator see of a simulation: its time, its machines, its network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from meshlib.testing.checkers.beginnings import Beginnings
from meshlib.testing.checkers.ledger import Ledger
from meshlib.testing.checkers.sometimes import Sometimes
from meshlib.testing.checkers.watch import ContentByVector
from meshlib.testing.world.hosts import Host
from meshlib.testing.world.network import SimulatedNetwork
from meshlib.testing.world.scenario import Scenario

__all__ = ["Cluster"]


class Cluster(Protocol):
    """A simulation, as incidents, the observer and the calm phase use it."""

    scenario: Scenario
    now: float
    is_calm: bool
    hosts: dict[str, Host]
    ledger: Ledger
    sometimes: Sometimes
    contents: ContentByVector
    beginnings: Beginnings
    network: SimulatedNetwork

    def schedule(self, at_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Run `action(now, *arguments)` at a simulated time."""
        ...

    def advance(self, until_s: float) -> None:
        """Let everything happen up to a simulated time."""
        ...

    def trace(self, label: str, what: str) -> None:
        """Hand one line to whoever reads along."""
        ...

    def seeds(self) -> tuple[str, ...]:
        """Return the addresses that a starting node is told of."""
        ...

    def add_host(self, label: str, *, name: str | None = None) -> Host:
        """Add a machine, or return the one of that label."""
        ...

    def running(self) -> list[Host]:
        """Return the machines with a process."""
        ...

    def start(self, now: float, host: Host) -> None:
        """Start a process on a machine."""
        ...

    def crash(self, host: Host) -> None:
        """End a process at once."""
        ...

    def leave(self, now: float, host: Host) -> None:
        """Let a node say goodbye and end."""
        ...

    def pause(self, now: float, host: Host, duration_s: float) -> None:
        """Stop a process for a while."""
        ...

    def resume(self, now: float, host: Host) -> None:
        """Let a stopped process go on."""
        ...
