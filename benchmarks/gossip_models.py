"""What the best known systems and models reach, to stand beside our figures.

Nobody publishes these figures for a product, so models stand in: seeded simulations of the
algorithms with the products' default settings (their own sources say which those are), which are
idealised and no measurements of the products. `hybrid` is the best of the models for
dissemination: each node pushes once to three, and everyone exchanges a digest each round.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DETECTION", "IDLE", "SPREAD", "floor_rounds"]

SPREAD: Final = {
    (8, 0.0): "hybrid 2.1/3, 3.1 copies",
    (8, 0.25): "hybrid 2.5/4, 3.0 copies",
    (32, 0.0): "hybrid 3.4/4, 3.3 copies",
    (32, 0.25): "hybrid 4.8/8, 3.6 copies",
    (128, 0.0): "hybrid 4.6/5, 3.6 copies",
    (128, 0.25): "hybrid 7.1/11, 3.8 copies",
    (1000, 0.0): "push-pull of three 5.1/6",
    (8, 0.1): "memberlist reaches all in 91.7 %",
    (32, 0.1): "memberlist reaches all in 97.7 %",
    (128, 0.1): "memberlist reaches all in 99.7 %",
    (1000, 0.1): "memberlist reaches all in 100 %",
    (8, 0.5): "memberlist reaches all in 36.3 %",
    (32, 0.5): "memberlist reaches all in 57.0 %",
    (128, 0.5): "memberlist reaches all in 74.7 %",
    (1000, 0.25): "memberlist reaches all in 100 %",
    (1000, 0.5): "memberlist reaches all in 67.0 %",
}
"""Nodes and loss to: mean/p99 of the rounds and payload copies over n - 1, or the share of writes
that memberlist's gossip brings to every node before its push-pull of 30 s."""

IDLE: Final = {
    10: "memberlist 54, chitchat 3,200",
    100: "memberlist 180, chitchat 31,800",
    128: "memberlist 180, chitchat 31,800 (n = 100)",
    1000: "memberlist 900, chitchat 318,000",
}
"""Nodes to bytes a second that a node sends at rest, probes left out, in the models."""

DETECTION: Final = {
    8: "memberlist 1.8, Down 5.8 (p99 8.2)",
    32: "memberlist 2.0, Down 8.0 (p99 12.0)",
    128: "memberlist 2.0, Down 10.0 (p99 13.3), n = 100",
    1000: "memberlist 2.0, Down 14.0 (p99 17.9)",
}
"""Nodes to seconds until the first suspicion, and until the first node holds the member Down."""


def floor_rounds(count: int, degree: int = 3) -> int:
    """Return the fewest rounds in which anything reaches all when each sends to `degree`."""
    hops, reached, newest = 0, 1, 1
    while reached < count:
        newest *= degree
        reached += newest
        hops += 1
    return hops
