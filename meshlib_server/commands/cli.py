"""The command `meshlib-server`. Exit codes: 0, 2 for usage, 3 when it could not start."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

from meshlib.errors import ConfigError, LocalError
from meshlib_server.commands.plan import plan
from meshlib_server.commands.remote import COMMANDS
from meshlib_server.commands.simulate import simulate

__all__ = ["EXIT_START_FAILURE", "demo", "main", "serve"]

EXIT_START_FAILURE = 3


class _Address(click.ParamType[str]):
    """A flag's value of the form `host:port`."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the value and return it."""
        from meshlib.aio import split_address  # not for `--help`: it loads the whole library

        try:
            split_address(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)
        return str(value)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="meshlib-crdt")
def main() -> None:
    """Replicas that share state without a store, behind HTTP."""


@main.command()
@click.option("--config", "config_path", metavar="FILE", help="YAML file with the settings.")
@click.option("--name", help="This node's name, unique in the cluster.")
@click.option("--listen", type=_Address(), help="Where to listen; API and gossip share it.")
@click.option("--advertise", type=_Address(), help="Where peers reach this node.")
@click.option("--peer", "peers", type=_Address(), multiple=True, help="A peer to join by.")
@click.option(
    "--gossip-profile",
    type=click.Choice(["lan", "wan", "local"]),
    help="The kind of network, by which the gossip is timed.",
)
@click.option("--token-file", metavar="FILE", help="Bearer tokens of callers, one a line.")
@click.option("--peer-token-file", metavar="FILE", help="Bearer tokens of peers, one a line.")
@click.option(
    "--bootstrap-after",
    type=float,
    metavar="SECONDS",
    help="When one of several nodes begins if none is ready; 0: never.",
)
@click.option(
    "--bootstrap-expect",
    type=int,
    metavar="NODES",
    help="How many nodes it takes for one of them to begin.",
)
@click.option("--storage-path", metavar="FILE", help="Where this node's state is kept.")
@click.option(
    "--storage-interval",
    type=float,
    metavar="SECONDS",
    help="How often the state is saved there.",
)
@click.option("--insecure", is_flag=True, help="Allow no tokens; listens on loopback only.")
def serve(
    *,
    config_path: str | None,
    name: str | None,
    listen: str | None,
    advertise: str | None,
    peers: tuple[str, ...],
    gossip_profile: str | None,
    token_file: str | None,
    peer_token_file: str | None,
    bootstrap_after: float | None,
    bootstrap_expect: int | None,
    storage_path: str | None,
    storage_interval: float | None,
    insecure: bool,
) -> None:
    """Run one node until it is told to leave.

    Flags win over the environment (MESH_SELF_NAME, MESH_TOKENS, ...), which wins over the file.
    """
    from meshlib_server.serving import StartError, run

    flags = {
        "mesh.self_name": name,
        "mesh.self_addr": listen,
        "mesh.advertise_addr": advertise,
        "mesh.init_peer": list(peers) or None,
        "mesh.gossip_profile": gossip_profile,
        "mesh.gossip.bootstrap_after_s": bootstrap_after,
        "mesh.gossip.bootstrap_expect": bootstrap_expect,
        "mesh.storage.path": storage_path,
        "mesh.storage.interval_s": storage_interval,
        "mesh.auth.tokens_file": token_file,
        "mesh.auth.peer_token_file": peer_token_file,
    }
    try:
        exit_code = run(
            config_path,
            environment=os.environ,
            flags={path: value for path, value in flags.items() if value is not None},
            is_insecure=insecure,
        )
    except (LocalError, StartError) as error:
        _fail(str(error))
    sys.exit(exit_code)


@main.command()
@click.option("--keep", is_flag=True, help="Leave the cluster running, and print its URLs.")
@click.option(
    "--transport",
    type=click.Choice(["websocket", "nats"]),
    default="websocket",
    help="What carries frames between the nodes; for nats a nats-server is started.",
)
def demo(*, keep: bool, transport: str) -> None:
    """Start three nodes on this machine and walk through what they do together."""
    from meshlib_server.commands.demo import run_demo

    sys.exit(run_demo(keep=keep, transport=transport))


main.add_command(plan)
main.add_command(simulate)
for _command in COMMANDS:
    main.add_command(_command)


def _fail(message: str) -> NoReturn:
    """Say in one line why the server could not start, and exit with code 3."""
    line = " ".join(message.split())
    click.echo(f"meshlib-server: {line}", err=True)
    sys.exit(EXIT_START_FAILURE)
