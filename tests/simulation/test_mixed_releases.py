"""Clusters of this release and the next: they agree, and bugs in how they speak are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

from meshlib.gossip import DIALECTS
from meshlib.gossip.speech import Speech
from meshlib.limits import FORMATS
from meshlib.replication import Replica
from meshlib.testing.simulation.requests import ScenarioRequest
from meshlib.testing.simulation.simulation import Simulation
from meshlib.testing.world.drawing import draw_next_share, draw_scenario
from meshlib.testing.world.scenario import Scenario

SEEDS = [pytest.param(n, marks=[pytest.mark.slow] if n else []) for n in range(12)]

Patch = Callable[[object, str, Any], None]


def mixed(seed: int) -> Scenario:
    """Return a seed's scenario with starts of both releases."""
    return evolve(draw_scenario(seed, duration_s=20.0), next_share=draw_next_share(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_with_starts_of_both_releases_breaks_no_rule(seed: int) -> None:
    """Whoever runs what, and whatever comes back as something else, all agree in the end."""
    outcome = Simulation(mixed(seed)).run()

    assert outcome.failure is None, str(outcome)


@pytest.mark.slow
def test_clusters_go_to_the_newer_format_and_back() -> None:
    """A few seeds are enough to see both; and no frame of the newer one is sent without reason."""
    raised = lowered = 0
    for seed in range(7, 13):
        simulation = Simulation(mixed(seed))
        assert simulation.run().failure is None
        raised += simulation.observer.formats_raised
        lowered += simulation.observer.formats_lowered

    assert raised > 0
    assert lowered > 0


def test_the_option_is_off_unless_asked_for() -> None:
    """Then each start is of this release, and a seed is the history that it was."""
    simulation = Simulation(draw_scenario(1, duration_s=5.0))
    simulation.run()

    assert {FORMATS} == {host.node.config.formats for host in simulation.running()}
    assert 0.0 == ScenarioRequest(seed=1).scenario().next_share
    assert ScenarioRequest(seed=1, mixes_releases=True).scenario().next_share > 0


# Bugs that are to be found


def speak_the_newer_to_all_at_once(patch: Patch) -> None:
    """A node of the next release says everything in its own format."""
    patch(Speech, "to", lambda self, _address, _message: DIALECTS[self.formats[1]])


def never_go_back(patch: Patch) -> None:
    """What a peer was heard to read it is taken to read for ever, and so for all members."""
    hear, look = Speech.hear, Speech.look

    def broken_hear(self: Any, address: str, formats: Any, *, is_current: bool) -> None:
        known = self._heard.get(address)
        if known is None or formats[1] > known[1]:
            hear(self, address, formats, is_current=is_current)

    def broken_look(self: Any, members: Any, **settings: Any) -> Any:
        before = self.spoken
        changed = look(self, members, **settings)
        self.spoken = max(before, self.spoken)
        return changed

    patch(Speech, "hear", broken_hear)
    patch(Speech, "look", broken_look)
    patch(Speech, "doubt", lambda _self, _address: None)
    patch(Speech, "learn", lambda _self, _record: None)


def write_pages_of_the_newer_format_to_all(patch: Patch) -> None:
    """The pages of a state are of the sender's newest version, whoever asked for them."""
    transfer_pages = Replica.transfer_pages

    def broken(self: Any, offer: Any, **settings: Any) -> Any:
        settings["page_version"] = self._parts.page_newest
        return transfer_pages(self, offer, **settings)

    patch(Replica, "transfer_pages", broken)


BUGS = [
    speak_the_newer_to_all_at_once,
    never_go_back,
    write_pages_of_the_newer_format_to_all,
]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_bug_in_how_releases_speak_is_found(
    bug: Callable[[Patch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some seed of forty breaks a rule."""
    bug(monkeypatch.setattr)
    outcomes = (Simulation(mixed(seed)).run() for seed in range(40))
    found = next((each for each in outcomes if each.failure is not None), None)

    assert found is not None
    assert found.failure is not None
    last_line = found.failure.detail.strip().splitlines()[-1]
    assert not last_line.startswith(("AttributeError", "NameError", "TypeError")), last_line
    print(f"\n{bug.__name__}: seed {found.seed}, {found.failure.rule}: {last_line:.100}")
