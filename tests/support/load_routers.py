"""Shared loads of several routers, and the messages between them."""

from __future__ import annotations

from meshlib.identity import actor_id
from meshlib.routing import SharedLoad


class Routers:
    """Shared loads by name, and the messages between them, which a test may lose."""

    def __init__(self, *names: str) -> None:
        self.now = 0.0
        self.starts = dict.fromkeys(names, 1)
        self.loads = {name: SharedLoad(actor_id(name, 1)) for name in names}
        self.lost = False
        self.tell_members()

    def restart(self, name: str) -> None:
        self.starts[name] = self.starts.get(name, 0) + 1
        self.loads[name] = SharedLoad(actor_id(name, self.starts[name]))
        self.tell_members()

    def kill(self, name: str) -> None:
        del self.loads[name]
        self.tell_members()

    def tell_members(self) -> None:
        for own, load in self.loads.items():
            others = {n: actor_id(n, self.starts[n]) for n in self.loads if n != own}
            load.update_members(others, now=self.now)

    def run(self, seconds: float) -> None:
        """Let time pass: every router does what is due, and messages arrive at once."""
        end = self.now + seconds
        while True:
            dues = [
                due for load in self.loads.values() if (due := load.next_deadline()) is not None
            ]
            if not dues or min(dues) > end:
                break
            self.now = max(self.now, min(dues))
            for name, load in list(self.loads.items()):
                due = load.next_deadline()
                if due is None or due > self.now:
                    continue
                others = [other for other in self.loads if other != name]
                for update in load.tick(self.now, others=others):
                    if not self.lost:
                        for to in update.to:
                            self.loads[to].receive(update.payload, sender=name, now=self.now)
        self.now = end

    def counts(self, worker_id: str = "w1") -> list[int]:
        return [load.request_count(worker_id) for load in self.loads.values()]

    def backlogs(self, worker_id: str = "w1") -> list[int]:
        return [round(load.backlog(worker_id, now=self.now)) for load in self.loads.values()]
