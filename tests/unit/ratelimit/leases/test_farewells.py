"""What an owner that leaves hands on: good for its next owner, and for nobody later."""

from __future__ import annotations

import pytest
from support.limit_lab import LimitLab, Machine, QuietLab

KEY = "many"


class Goodbyes(QuietLab):
    """Three machines, of which the owner of the key leaves and comes back."""

    def __init__(self) -> None:
        super().__init__(3, limit=5)
        self.run_for(4.2)
        self.watcher = next(m for m in self.machines.values() if m is not self.owner_of(m.name))
        self.use(1)  # votes are asked for when they are needed

    def owner_of(self, name: str) -> Machine:
        """Return the machine that decides on the key, as a machine sees it."""
        limiter = self.machines[name].limiter
        assert limiter is not None
        return self.machines[limiter._owner.view.owner(KEY)]

    def goodbye(self, name: str, *, is_heard: bool) -> None:
        """Let a machine leave, heard or not, and all the others notice."""
        machine = self.machines[name]
        assert machine.limiter is not None
        messages = machine.limiter.leave(now=self.local(machine))
        if is_heard:
            self.post(name, messages)
        machine.limiter = None
        self.run_for(0.01)
        for other in self.machines:
            self.notice_left(other, name)

    def use(self, count: int, *, every_s: float = 0.0) -> int:
        """Ask at the watcher for so many units, one by one; return how many were admitted."""
        before = sum(self.admitted.values())
        for number in range(count):
            self.offer(self.now + number * every_s, self.watcher.name)
        self.run_for(count * every_s or 0.05)
        return sum(self.admitted.values()) - before

    def to_window(self) -> None:
        """Go on to shortly after the next window begins."""
        self.run_for(1.02 - self.now % 1.0)


def test_the_next_owner_goes_on_from_what_was_handed_on() -> None:
    """In the same window: three were used of five."""
    lab = Goodbyes()
    lab.to_window()
    owner = lab.owner_of(lab.watcher.name)
    used = lab.use(3)
    lab.goodbye(owner.name, is_heard=True)

    assert used == 3
    assert lab.use(5) == 2


def test_what_was_handed_on_by_an_earlier_start_is_not_gone_on_from() -> None:
    """It leaves, comes back, decides and leaves once more, unheard: its first farewell is old."""
    lab = Goodbyes()
    lab.to_window()
    owner = lab.owner_of(lab.watcher.name)
    lab.use(1)
    lab.goodbye(owner.name, is_heard=True)
    lab.start(owner.name)
    lab.run_for(3.5)
    lab.use(1)
    lab.run_for(0.5)
    assert lab.owner_of(lab.watcher.name) is owner
    lab.to_window()
    used = lab.use(3)
    lab.goodbye(owner.name, is_heard=False)

    assert used == 3
    # The others promised the owner their votes: they are free again before the window is over.
    assert lab.use(90, every_s=0.01) <= 2


@pytest.mark.parametrize("seed", [2277])
def test_a_seed_that_once_broke_the_law(seed: int) -> None:
    """As it is drawn today: six of five, by a farewell of five seconds before."""
    assert LimitLab(seed).run().granted
