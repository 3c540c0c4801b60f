"""`meshlib-server status` and its like: commands against a node that runs.

Exit codes: 0 done; 1 the node said no, or the thing is not there; 2 usage; 3 nobody was reached, or
an extra is missing; 4 the node cannot now: not ready, leaving, or nobody to choose.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import attrs
import click
from attrs import frozen

from meshlib_server.commands.printing import printable

if TYPE_CHECKING:
    from meshlib_server.client import MeshClient

__all__ = ["COMMANDS", "CONFIG_FOLDER", "EXIT_REFUSED", "EXIT_UNAVAILABLE", "EXIT_UNREACHABLE"]

EXIT_REFUSED: Final = 1
EXIT_UNREACHABLE: Final = 3
EXIT_UNAVAILABLE: Final = 4

DEFAULT_ADDRESS: Final = "http://127.0.0.1:8000"

CONFIG_FOLDER: Final = "meshlib"
"""The folder of `profiles.yaml`, under `XDG_CONFIG_HOME` or `~/.config`."""


@frozen(kw_only=True)
class _Target:
    """The node that is asked, and how the answer is shown.

    Args:
        address: where it is.
        token: what is shown to it.
        ca_file: the authority of its certificate; None: the system's.
        is_json: whether the answer is printed for a program.
    """

    address: str
    token: str | None
    ca_file: str | None
    is_json: bool


def _profile(name: str | None) -> Mapping[str, str]:
    if name is None:
        return {}
    import yaml

    folder = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    path = Path(folder) / CONFIG_FOLDER / "profiles.yaml"
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        profile = tree["profiles"][name]
    except OSError as error:
        raise click.UsageError(f"cannot read the profiles in {path}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError, yaml.YAMLError):
        raise click.UsageError(f"there is no profile {name!r} in {path}") from None
    known = {"address", "token_file", "ca_file"}
    if not isinstance(profile, dict) or not set(profile) <= known:
        raise click.UsageError(f"a profile has {', '.join(sorted(known))}: {name!r} in {path}")
    return {key: str(value) for key, value in profile.items()}


def _token(path: str | None) -> str | None:
    if path is None:
        return os.environ.get("MESH_TOKEN") or None
    try:
        lines = Path(path).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"cannot read the token in {path}: {error}") from None
    if not lines:
        raise click.UsageError(f"there is no token in {path}")
    return lines[0]


def _target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name the node; it is called with a `_Target` first."""

    @click.option("--address", envvar="MESH_ADDRESS", help=f"The node.  [{DEFAULT_ADDRESS}]")
    @click.option(
        "--token-file", metavar="FILE", help="Its first word is the token; or MESH_TOKEN."
    )
    @click.option("--ca-file", envvar="MESH_CA_FILE", metavar="FILE", help="Authority of the node.")
    @click.option("--profile", envvar="MESH_PROFILE", help="A name in meshlib/profiles.yaml.")
    @click.option("--json", "is_json", is_flag=True, help="Print the answer for a program.")
    @functools.wraps(command)
    def wrapped(
        *, address: str | None, token_file: str | None, ca_file: str | None,
        profile: str | None, is_json: bool, **rest: Any,
    ) -> Any:  # fmt: skip
        kept = _profile(profile)
        target = _Target(
            address=address or kept.get("address") or DEFAULT_ADDRESS,
            token=_token(
                token_file or (None if os.environ.get("MESH_TOKEN") else kept.get("token_file"))
            ),
            ca_file=ca_file or kept.get("ca_file"),
            is_json=is_json,
        )
        return command(target, **rest)

    return wrapped


@contextlib.contextmanager
def _asking(target: _Target) -> Iterator[MeshClient]:
    """Give a client, and turn what goes wrong into one line and an exit code."""
    try:
        from meshlib_server.client import ApiError, MeshClient, UnreachableError
    except ImportError as error:
        _fail(str(error), EXIT_UNREACHABLE)
    try:
        tls = ssl.create_default_context(cafile=target.ca_file) if target.ca_file else None
        with MeshClient(target.address, token=target.token, tls=tls) as client:
            yield client
    except ApiError as error:
        _fail(f"{error}{_advice(error.status)}", _exit_code(error.status))
    except UnreachableError as error:
        _fail(f"{error}; is --address right?", EXIT_UNREACHABLE)
    except (ImportError, OSError) as error:
        _fail(str(error), EXIT_UNREACHABLE)


def _advice(status: int) -> str:
    return {
        401: "; give one by --token-file or MESH_TOKEN",
        503: "; `status` tells what the node is doing",
    }.get(status, "")


def _exit_code(status: int) -> int:
    return EXIT_UNAVAILABLE if status >= 500 else EXIT_REFUSED


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"meshlib-server: {' '.join(message.split())}", err=True)
    sys.exit(code)


def _print_json(tree: Any) -> None:
    click.echo(json.dumps(tree, indent=2, ensure_ascii=False, sort_keys=True))


def _plain(record: Any) -> Any:
    return attrs.asdict(record)


def _show(target: _Target, records: Sequence[Any], columns: Sequence[str], empty: str) -> None:
    """Show records as a table, or as JSON."""
    trees = [_plain(record) for record in records]
    if target.is_json:
        _print_json(trees)
    elif not trees:
        click.echo(empty)
    else:
        try:
            from meshlib_server.commands.tables import print_table
        except ImportError:
            extra = "pip install 'meshlib-crdt[client]'"
            _fail(f"tables need the extra `client`: {extra}", EXIT_UNREACHABLE)
        print_table(columns, ([tree[name] for name in columns] for tree in trees))


@click.command("status")
@_target_options
def _status(target: _Target) -> None:
    """Show how the cluster looks from the node."""
    with _asking(target) as client:
        cluster, health = client.status(), client.health()
    if target.is_json:
        _print_json({"status": _plain(cluster), "health": _plain(health)})
        return
    click.echo(f"{health.node_name} is {health.state}, the cluster is {health.status}")
    click.echo(
        f"{health.cluster_size} of {cluster.node_count} members in reach, "
        f"{cluster.stores.worker_count} workers, {cluster.stores.policy_count} policies, "
        f"{cluster.stores.app_count} configuration keys"
    )
    for problem in health.problems:
        click.echo(f"problem: {printable(problem)}")


@click.command("members")
@_target_options
def _members(target: _Target) -> None:
    """List the members, as the node sees them."""
    with _asking(target) as client:
        found = client.status().nodes
    _show(target, found, ("name", "address", "status", "version"), "there are no members")


@click.command("workers")
@_target_options
def _workers(target: _Target) -> None:
    """List the workers."""
    with _asking(target) as client:
        found = client.workers()
    columns = ("worker_id", "model_id", "url", "health", "load", "version", "ttl_s")
    _show(target, found, columns, "there are no workers")


@click.command("policies")
@_target_options
def _policies(target: _Target) -> None:
    """List the policies."""
    with _asking(target) as client:
        found = client.policies()
    columns = ("model_id", "policy_type", "config", "version", "default_of")
    _show(target, found, columns, "there are no policies")


@click.group("config")
def _config() -> None:
    """Read and write configuration; a value is text, or with --hex bytes."""


def _as_value(value: bytes, *, is_hex: bool) -> str:
    if is_hex:
        return value.hex()
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise click.UsageError("the value is no text; ask with --hex") from None


@_config.command("list")
@_target_options
def _config_list(target: _Target) -> None:
    """List the keys."""
    with _asking(target) as client:
        keys = client.config_keys()
    if target.is_json:
        _print_json(list(keys))
    else:
        for key in keys:
            click.echo(printable(key))


@_config.command("get")
@click.argument("key")
@click.option("--hex", "is_hex", is_flag=True, help="Print the bytes in hex.")
@_target_options
def _config_get(target: _Target, *, key: str, is_hex: bool) -> None:
    """Print the value of KEY."""
    with _asking(target) as client:
        value = client.get_config(key)
    if target.is_json:
        _print_json({"key": key, "value": value.hex(), "format": "hex"})
    else:
        click.echo(_as_value(value, is_hex=is_hex))


@_config.command("set")
@click.argument("key")
@click.argument("value")
@click.option("--hex", "is_hex", is_flag=True, help="VALUE is bytes in hex.")
@_target_options
def _config_set(target: _Target, *, key: str, value: str, is_hex: bool) -> None:
    """Write VALUE under KEY."""
    try:
        content = bytes.fromhex(value) if is_hex else value.encode()
    except ValueError:
        raise click.UsageError("VALUE is no hex of even length") from None
    with _asking(target) as client:
        client.set_config(key, content)
    _done(target, "updated", key)


@_config.command("delete")
@click.argument("key")
@_target_options
def _config_delete(target: _Target, *, key: str) -> None:
    """Remove KEY."""
    with _asking(target) as client:
        client.delete_config(key)
    _done(target, "deleted", key)


def _done(target: _Target, word: str, name: str) -> None:
    if target.is_json:
        _print_json({"status": word, "name": name})
    else:
        click.echo(f"{word}: {printable(name)}")


@click.group("limits")
def _limits() -> None:
    """Read and write rate limits."""


@_limits.command("get")
@click.argument("key", default="global")
@_target_options
def _limits_get(target: _Target, *, key: str) -> None:
    """Show how much of the limit of KEY is used; the global one by default."""
    with _asking(target) as client:
        usage = client.limit_usage(key)
    if target.is_json:
        _print_json({"key": key, **_plain(usage)})
        return
    for used in usage.limits:
        click.echo(f"{printable(key)}: {used.used_count:,} used of {printable(used.policy)}")
    if usage.limits:
        return
    of = f"of {usage.limit_per_second:,}" if usage.limit_per_second else "without a limit"
    click.echo(f"{printable(key)}: {usage.current_count:,} in this window, {of}")


@_limits.command("set")
@click.argument("key")
@click.argument("limit_per_second", type=click.IntRange(min=0))
@_target_options
def _limits_set(target: _Target, *, key: str, limit_per_second: int) -> None:
    """Let KEY pass LIMIT_PER_SECOND units a second in the whole cluster; 0: no limit."""
    with _asking(target) as client:
        client.set_limit(key, limit_per_second)
    _done(target, "updated", key)


@_limits.command("list")
@_target_options
def _limits_list(target: _Target) -> None:
    """Show the rules: limits for the keys of a pattern."""
    with _asking(target) as client:
        rules = client.limit_rules()
    if target.is_json:
        _print_json([_plain(rule) for rule in rules])
        return
    for rule in rules:
        limits = ", ".join(printable(limit) for limit in rule.limits)
        click.echo(f"{printable(rule.name)}: {printable(rule.pattern)}: {limits}")


@_limits.command("rule")
@click.argument("name")
@click.argument("limits", nargs=-1, required=True)
@click.option("--pattern", help="Which keys, such as tokens:{key}; NAME itself by default.")
@_target_options
def _limits_rule(
    target: _Target, *, name: str, limits: tuple[str, ...], pattern: str | None
) -> None:
    """Let each key of a pattern pass LIMITS, such as 100000/minute, in the whole cluster."""
    with _asking(target) as client:
        client.put_limit_rule(name, limits=limits, pattern=pattern)
    _done(target, "updated", name)


@_limits.command("remove")
@click.argument("name")
@_target_options
def _limits_remove(target: _Target, *, name: str) -> None:
    """Remove the rule NAME."""
    with _asking(target) as client:
        client.delete_limit_rule(name)
    _done(target, "deleted", name)


@click.command("route")
@click.argument("model")
@click.argument("text")
@_target_options
def _route(target: _Target, *, model: str, text: str) -> None:
    """Choose a worker of MODEL for the prompt TEXT; `-` reads it from standard input."""
    prompt = sys.stdin.read() if text == "-" else text
    with _asking(target) as client:
        chosen = client.route(model, prompt)
    if target.is_json:
        _print_json(_plain(chosen))
    else:
        click.echo(
            f"{printable(chosen.worker_id)} at {printable(chosen.url)}: {chosen.reason}, "
            f"{chosen.matched:,} of {len(prompt):,} characters cached"
        )


@click.command("events")
@click.option("--count", type=click.IntRange(min=1), help="End after so many.")
@_target_options
def _events(target: _Target, *, count: int | None) -> None:
    """Show what happens to the node, a line each, until it ends or you do."""
    seen = 0
    with _asking(target) as client, contextlib.suppress(KeyboardInterrupt):
        for event in client.events():
            if event.kind == "overview":
                continue
            if target.is_json:
                click.echo(json.dumps({"kind": event.kind, **event.data}, ensure_ascii=False))
            else:
                facts = " ".join(f"{name}={printable(value)}" for name, value in event.data.items())
                click.echo(f"{event.kind} {facts}")
            seen += 1
            if seen == count:
                return


@click.command("forget")
@click.argument("name")
@click.confirmation_option(prompt="A member that is forgotten counts for nothing. Go on?")
@_target_options
def _forget(target: _Target, *, name: str) -> None:
    """Forget the member NAME, which is Down for good; needs the scope admin."""
    with _asking(target) as client:
        client.forget(name)
    _done(target, "forgotten", name)


@click.command("leave")
@click.confirmation_option(prompt="The node hands over, leaves its cluster and ends. Go on?")
@_target_options
def _leave(target: _Target) -> None:
    """Let the node leave its cluster and end; needs the scope admin."""
    with _asking(target) as client:
        client.leave()
    _done(target, "leaving", target.address)


COMMANDS: Final[tuple[click.Command, ...]] = (
    _status, _members, _workers, _policies, _config, _limits, _route, _events, _forget, _leave,
)  # fmt: skip
"""What `meshlib-server` has beside what runs a node."""
