"""A node that is not let in by those it reaches, over TCP."""

from __future__ import annotations

import pytest

from meshlib import GossipConfig, MeshConfig, MeshRuntime, NodeState, TcpTransport
from meshlib.testing.world.next_format import NEXT_FORMAT

pytestmark = pytest.mark.anyio

QUICK = GossipConfig(bootstrap_after_s=0.2, leave_handover_s=0.0)


def runtime(
    name: str, seeds: list[str], *, token: str = "token", **settings: object
) -> MeshRuntime:
    """Make a runtime that would begin alone after a fifth of a second."""
    config = MeshConfig(name=name, gossip=QUICK, **settings)  # type: ignore[arg-type]
    return MeshRuntime(config, transport=TcpTransport("127.0.0.1:0", token=token), seeds=seeds)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"formats": (NEXT_FORMAT, NEXT_FORMAT)}, id="a release too far ahead"),
        pytest.param({"token": "another"}, id="another token"),
    ],
)
async def test_a_node_that_is_not_let_in_is_not_ready(
    wrong: dict[str, object],
) -> None:
    """So a rollout that waits for it goes no further, and the cluster stays whole."""
    async with runtime("old", []) as old:
        newer = runtime("newer", [old.node.address], **wrong)  # type: ignore[arg-type]
        async with newer:
            await newer.wait_until(
                lambda: "does not let this node in" in newer.node.state_problem(), timeout_s=30
            )
            assert (newer.state, newer.node.is_ready) == (NodeState.JOINING, False)
        assert old.node.is_ready
