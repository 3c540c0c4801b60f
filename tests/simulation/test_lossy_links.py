"""Nobody who lives is Down where a quarter of all packets is lost, and who has ended still is."""

from __future__ import annotations

import pytest
from support.lossy_network import NODES, LossyNetwork

from meshlib.membership import Lateness

LOSS = 0.35
RETRY_MAX_S = 1.0
"""See `bound_silence`: what a link asks of the system, and Linux 6.15 or later does."""

UNBOUNDED_RETRY_MAX_S = 120.0
"""The longest wait between two tries on older systems."""

NODE_HOURS = 10.0
SEEDS = 6

both_systems = pytest.mark.parametrize(
    ("seed", "retry_max_s"),
    [(3, UNBOUNDED_RETRY_MAX_S), (4, RETRY_MAX_S)],
    ids=["older systems", "bounded"],
)


def downs_of(seed: int, *, duration_s: float, retry_max_s: float) -> int:
    """Return how often somebody was held for Down, all nodes that hold it counted."""
    network = LossyNetwork(seed, loss=LOSS, retry_max_s=retry_max_s)
    network.run(duration_s)
    assert network.counts()["Refuted"]
    for node in network.nodes.values():
        node._check()
    return network.counts()["MemberDown"]


def learn_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let suspicions last as long as they do where refutations come in no time."""
    monkeypatch.setattr(Lateness, "stretch", lambda _self, bounds_s, _now: bounds_s)


@both_systems
def test_nobody_who_lives_is_down(seed: int, retry_max_s: float) -> None:
    """Suspicions last longer where refutations come late."""
    assert 0 == downs_of(seed, duration_s=200.0, retry_max_s=retry_max_s)


@both_systems
def test_somebody_is_where_nothing_is_learnt_of_late_refutations(
    seed: int, retry_max_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail."""
    learn_nothing(monkeypatch)

    assert 0 < downs_of(seed, duration_s=200.0, retry_max_s=retry_max_s)


def test_who_has_ended_is_down_as_soon_as_ever_where_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody refutes late there, so nothing is different: not by a hundredth of a second."""
    took_s = [LossyNetwork(seed, loss=0.0).run_until_down("n3") for seed in range(8)]
    learn_nothing(monkeypatch)

    assert took_s == [LossyNetwork(seed, loss=0.0).run_until_down("n3") for seed in range(8)]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nobody_who_lives_is_down_for_hours() -> None:
    """Ten hours of nodes over links that try again each second."""
    duration_s = NODE_HOURS * 3600.0 / NODES / SEEDS
    downs = [
        downs_of(seed, duration_s=duration_s, retry_max_s=RETRY_MAX_S) for seed in range(SEEDS)
    ]

    assert downs == [0] * SEEDS


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("retry_max_s", [UNBOUNDED_RETRY_MAX_S, RETRY_MAX_S])
def test_who_has_ended_is_down_within_20_s_where_a_quarter_is_lost(retry_max_s: float) -> None:
    """What the suspicions that last longer cost."""
    took_s = []
    for seed in range(40):
        network = LossyNetwork(seed, loss=LOSS, retry_max_s=retry_max_s)
        network.run(60.0)
        took_s.append(network.run_until_down("n3"))
    took_s.sort()
    print(
        f"\nretry within {retry_max_s:g} s: median {took_s[20]:.1f} s, longest {took_s[-1]:.1f} s"
    )

    assert took_s[-1] <= 20.0
