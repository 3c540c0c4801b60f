"""Networks that lose a tenth or a quarter of all packets, while writes go on."""

from __future__ import annotations

from functools import partial

import pytest
from support.namespaces import Cluster, Traffic

pytestmark = [pytest.mark.network, pytest.mark.timeout(300)]


@pytest.mark.parametrize("percent", [10, 25])
def test_everything_arrives_through_a_network_that_loses_packets(
    whole: Cluster, traffic: Traffic, percent: int
) -> None:
    """Under loss every write arrives, and nobody stays Down; afterwards the cluster is whole."""
    whole.lab.lose(percent)
    traffic.start()
    traffic.await_more(600)
    traffic.finish()
    whole.wait_until(
        lambda: all(traffic.missing_from(whole.content(node)) == [] for node in whole.nodes),
        "every write is everywhere, under loss",
    )
    for node in whole.nodes:
        whole.wait_until(
            partial(
                lambda node: len(whole.seen(node)) == 5 and "Down" not in whole.seen(node).values(),
                node,
            ),
            partial(
                lambda node: f"nobody is Down to {node.name}; it sees {whole.seen(node)}", node
            ),
        )
    downs = sum(len(whole.events(node, "MemberDown")) for node in whole.nodes)
    print(f"\n{percent} %: {traffic.count} writes, {downs} times Down and back")
    whole.lab.heal()

    whole.await_whole(traffic)
