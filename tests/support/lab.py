"""A network made of this machine's kernel, whose links are cut and worsened at will.

Each node has a network namespace of its own, and a further one holds the bridge that joins
them, so that nothing of the host is changed but for one interface: by it the tests reach every
node's API, also when no node reaches another. Packets are dropped where they arrive, by
nftables inside the node's own namespace, and only when another node sent them.

Everything is named by process and chance, and is taken away by name whatever happens.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Collection

BENCHMARK_BLOCKS = list(ipaddress.IPv4Network("198.18.0.0/15").subnets(new_prefix=28))
"""RFC 2544: addresses that no route of the outside uses."""

RULES = """
table inet lab {{
  set unheard {{ type ipv4_addr; }}
  chain weather {{ }}
  chain arriving {{
    type filter hook input priority 0;
    ip saddr @unheard drop
    ip saddr {{ {nodes} }} jump weather
  }}
}}
"""


class CommandFailed(Exception):  # noqa: N818 - reads as what happened
    """A command of the system did not do what it should; the message is what it said."""


def require(*commands: str) -> None:
    """See that commands of the system are there."""
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        raise CommandFailed(f"missing commands: {', '.join(missing)}")


def run(*command: str, stdin: str | None = None) -> str:
    """Run a command of the system and return what it printed."""
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=20, check=False
    )
    if done.returncode:
        raise CommandFailed(f"`{' '.join(command)}`: {done.stderr.strip()}")
    return done.stdout


def free_block() -> list[str]:
    """Return the hosts of a block of addresses that no interface of this machine has."""
    held = {
        ipaddress.IPv4Address(address["local"])
        for interface in json.loads(run("ip", "-j", "-4", "address"))
        for address in interface["addr_info"]
    }
    start = os.getpid() % len(BENCHMARK_BLOCKS)
    for block in BENCHMARK_BLOCKS[start:] + BENCHMARK_BLOCKS[:start]:
        if not any(address in block for address in held):
            return [str(host) for host in block.hosts()]
    raise CommandFailed("every block of 198.18.0.0/15 is in use")


class Lab:
    """Namespaces joined by a bridge, and the rules by which packets between them are lost."""

    def __init__(self, count: int) -> None:
        require("ip", "nft")  # of the packages iproute2 and nftables
        self._id = f"{os.getpid()}{secrets.token_hex(2)}"
        self._hub = f"meshlib-{self._id}-hub"
        self._interface = f"ml{self._id}"  # at most 15 characters
        self._namespaces = [f"meshlib-{self._id}-{index + 1}" for index in range(count)]
        self._own_address, *addresses = free_block()
        self.addresses = addresses[:count]

    def build(self) -> None:
        """Make all of it."""
        for namespace in (self._hub, *self._namespaces):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        run("ip", "-n", self._hub, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", self._hub, "link", "set", "bridge", "up")
        run("ip", "link", "add", self._interface, "type", "veth",
            "peer", "name", "host", "netns", self._hub)  # fmt: skip
        run("ip", "address", "add", f"{self._own_address}/28", "dev", self._interface)
        run("ip", "link", "set", self._interface, "up")
        self._plug("host")
        rules = RULES.format(nodes=", ".join(self.addresses))
        for namespace, address in zip(self._namespaces, self.addresses, strict=True):
            plug = f"to-{namespace[-1]}"
            run("ip", "-n", namespace, "link", "add", "eth0", "type", "veth",
                "peer", "name", plug, "netns", self._hub)  # fmt: skip
            run("ip", "-n", namespace, "address", "add", f"{address}/28", "dev", "eth0")
            run("ip", "-n", namespace, "link", "set", "eth0", "up")
            self._plug(plug)
            self._filter(self.addresses.index(address), rules)

    def _plug(self, interface: str) -> None:
        run("ip", "-n", self._hub, "link", "set", interface, "master", "bridge", "up")

    def remove(self) -> None:
        """Take all of it away, whatever of it there is."""
        if self._interface in run("ip", "-brief", "link"):
            # Before its other end goes with the hub, which takes it along at a time of its own.
            run("ip", "link", "delete", self._interface)
        present = run("ip", "netns", "list").split()
        for namespace in (self._hub, *self._namespaces):
            if namespace in present:
                run("ip", "netns", "delete", namespace)

    def launcher(self, index: int) -> tuple[str, ...]:
        """Return the command that starts another one inside a node's namespace."""
        return ("ip", "netns", "exec", self._namespaces[index])

    def _filter(self, index: int, rules: str) -> None:
        """Change the rules of one node, all of them or none."""
        run(*self.launcher(index), "nft", "-f", "-", stdin=rules)

    def received_bytes(self, index: int) -> int:
        """Return how many bytes have arrived at a node's interface, whatever became of them."""
        namespace = self._namespaces[index]
        (interface,) = json.loads(run("ip", "-n", namespace, "-j", "-s", "link", "show", "eth0"))
        return int(interface["stats64"]["rx"]["bytes"])

    # What befalls the links

    def deafen(self, listeners: Collection[int], *, to: Collection[int]) -> None:
        """Let some nodes hear no packet of some others; the other direction stays as it is."""
        speakers = ", ".join(self.addresses[index] for index in to)
        for index in listeners:
            self._filter(index, f"add element inet lab unheard {{ {speakers} }}")

    def cut(self, one_side: Collection[int], other_side: Collection[int]) -> None:
        """Cut two sides from each other, both ways."""
        self.deafen(one_side, to=other_side)
        self.deafen(other_side, to=one_side)

    def lose(self, percent: int) -> None:
        """Drop so many of the packets that arrive at each node, at random."""
        for index in range(len(self._namespaces)):
            self._worsen(index, f"numgen random mod 100 < {percent} drop")

    def slow(self, index: int, *, kbytes_per_s: int) -> None:
        """Drop what arrives at a node beyond a rate."""
        self._worsen(index, f"limit rate over {kbytes_per_s} kbytes/second burst 256 kbytes drop")

    def _worsen(self, index: int, rule: str) -> None:
        chain = "chain inet lab weather"
        self._filter(index, f"flush {chain}\nadd rule {chain.removeprefix('chain ')} {rule}")

    def heal(self) -> None:
        """Let every packet through again."""
        for index in range(len(self._namespaces)):
            self._filter(index, "flush set inet lab unheard\nflush chain inet lab weather")
