"""One process, one node: start, run, leave, end.

Rule: the order of a start and of an end must live in this file. Started: settings, tokens,
socket, address, plugs, node, HTTP. Ended, however it was asked for: the node says that it is not
ready and still answers for a while, each answer the last of its connection; it hands over, leaves
and flushes while HTTP answers 503, then HTTP and the plugs close, and the exit code is 0. Who asks
twice does not wait for any of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen
from starlette.applications import Starlette

from meshlib import MeshConfig, MeshRuntime, SnapshotFile
from meshlib.aio import (
    Discovery,
    DnsSeeds,
    FileSeeds,
    FixedSeeds,
    SeveralSources,
    SrvSeeds,
    join_address,
    split_address,
)
from meshlib.errors import ConfigError, NameConflictError
from meshlib_server.access import Tls, watch_files
from meshlib_server.addresses import advertised_address, listening_address
from meshlib_server.app import build_app
from meshlib_server.auth import Keyring, Secrets, load_secrets
from meshlib_server.companions import companions
from meshlib_server.config import MeshSettings, Settings, StorageSettings, load_settings
from meshlib_server.http import HttpServer, share_descriptors
from meshlib_server.lag import Freezer, new_watched_loop
from meshlib_server.logs import configure_logging, get_logger
from meshlib_server.metrics import Sources
from meshlib_server.plugs import Plug, load_plugs, serve_plugs
from meshlib_server.service import Service
from meshlib_server.tracing import traced
from meshlib_server.transports import PeerCarrier, make_transport, mounted_of

__all__ = ["StartError", "run"]

LEAVE_TIMEOUT_S: Final = 4.5
"""For the node to leave, flush and save, beside `leave_handover_s` for handing over."""

EXIT_FAILURE: Final = 1

BACKLOG: Final = 4096
"""Connections that wait to be taken; the kernel has its own bound. One that finds no room is tried
again by its caller's kernel after a second or three, whoever it is."""


class StartError(Exception):
    """The server cannot start, or must not go on. The message is one line."""


@frozen(kw_only=True)
class _Prepared:
    """What is known before the event loop runs."""

    settings: Settings
    secrets: Secrets
    listener: socket.socket
    listening: str
    advertised: str
    reread: Callable[[], Secrets]
    watched: tuple[str, ...]
    tls: Tls | None
    plugs: tuple[Plug, ...]


def run(
    config_path: str | None,
    *,
    environment: Mapping[str, str],
    flags: Mapping[str, Any],
    is_insecure: bool,
) -> int:
    """Run one node until it is told to leave, and return the exit code.

    Args:
        config_path: the YAML file; None for none.
        environment: the process's variables.
        flags: dotted path of a setting to its value.
        is_insecure: allow no tokens, on loopback only.

    Raises:
        ConfigError: a setting that cannot hold. Nothing was started.
        StartError: the address is taken, or the name is. Everything started was stopped.
    """
    # Whoever started it may have gone, which is no reason to end; later it rereads the tokens.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    settings = load_settings(config_path, environment=environment, flags=flags)
    log = settings.mesh.log
    with contextlib.closing(configure_logging(log.level, form=log.format)) as writer:
        flagged = [
            path.removeprefix("mesh.auth.") for path in flags if path.startswith("mesh.auth.")
        ]

        def read_secrets() -> Secrets:
            return load_secrets(settings.mesh.auth, environment=environment, flagged=flagged)

        sources, kind = Sources(log=writer), settings.mesh.event_loop
        with (
            _prepare(settings, read_secrets, is_insecure=is_insecure) as prepared,
            Freezer(),
            asyncio.Runner(loop_factory=lambda: new_watched_loop(sources.lag, kind=kind)) as runner,
        ):
            return runner.run(_serve(prepared, sources))


@contextlib.contextmanager
def _prepare(
    settings: Settings, reread: Callable[[], Secrets], *, is_insecure: bool
) -> Iterator[_Prepared]:
    mesh, secrets = settings.mesh, reread()
    tls = None if mesh.tls.certificate_file is None else Tls(mesh.tls)
    token_files = (mesh.auth.tokens_file, mesh.auth.peer_token_file)
    _check_secrets(settings, secrets, is_insecure=is_insecure)
    plugs = load_plugs(mesh.envoy, mesh.worker_sources) if mesh.enabled else ()
    wanted = listening_address(mesh.self_addr, is_loopback_only=not secrets.operators)
    with _listen(wanted) as listener:
        host, _ = split_address(wanted)
        listening = join_address(host, listener.getsockname()[1])
        advertised = listening
        if mesh.enabled:
            advertised = advertised_address(
                listening=listening, advertise_addr=mesh.advertise_addr, peers=mesh.init_peer
            )
        yield _Prepared(
            settings=settings,
            secrets=secrets,
            listener=listener,
            listening=listening,
            advertised=advertised,
            reread=reread,
            watched=(
                *mesh.tls.files,
                *(path for path in token_files if path is not None),
                *(path for plug in plugs for path in plug.files),
            ),
            tls=tls,
            plugs=plugs,
        )


def _check_secrets(settings: Settings, secrets: Secrets, *, is_insecure: bool) -> None:
    if not secrets.operators and not is_insecure:
        raise StartError(
            "no token: set mesh.auth.tokens_file (--token-file) or MESH_TOKENS, "
            "or pass --insecure to run without on loopback"
        )
    if secrets.operators and not secrets.peers and settings.mesh.enabled:
        found = settings.mesh.discovery
        if settings.mesh.init_peer or found.dns_names or found.srv_names or found.file:
            raise StartError(
                "no peer token: set mesh.auth.peer_token_file (--peer-token-file) or "
                "MESH_PEER_TOKEN, the same on every node"
            )
        get_logger().warning("there is no peer token, so no other node can join this one")


def _listen(address: str) -> socket.socket:
    """Bind and listen at once, so that a port in use is known before anything else starts."""
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, target = min(found, key=lambda item: item[0])
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise StartError(f"cannot listen on {address}: {_reason(error)}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StartError(f"cannot listen on {address}: {_reason(error)}") from None
    return listener


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


class _End:
    """That the end was asked for, and whether somebody cannot wait for it."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()

    async def wait_unless_hurried(
        self, what: Coroutine[Any, Any, Any], *, limit_s: float | None = None
    ) -> None:
        """Wait for something, but no longer than until somebody cannot wait."""
        tasks = [asyncio.create_task(what), asyncio.create_task(self.hurried.wait())]
        await asyncio.wait(tasks, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


async def _serve(prepared: _Prepared, sources: Sources) -> int:
    """Run the node and its HTTP until told to end; return the exit code."""
    if not prepared.settings.mesh.enabled:
        end = _End()
        service = Service(None, shut_down=end.asked.set, sources=sources)
        keyring = Keyring(prepared.secrets)
        app = build_app(service, secrets=keyring, http=prepared.settings.mesh.http)
        reload = _reloader(prepared, keyring, None)
        async with _http(app, prepared, service, end=end, reload=reload) as server:
            await end.asked.wait()
            await _drain(server, prepared, end)
        return EXIT_FAILURE if end.hurried.is_set() else 0
    return await _serve_node(prepared, sources)


async def _drain(server: HttpServer, prepared: _Prepared, end: _End) -> None:
    """Go on answering for the grace period."""
    server.begin_draining()
    await end.wait_unless_hurried(asyncio.sleep(prepared.settings.mesh.http.grace_s))


async def _serve_node(prepared: _Prepared, sources: Sources) -> int:
    end, keyring = _End(), Keyring(prepared.secrets)
    mesh = prepared.settings.mesh
    transport = make_transport(
        mesh.transport,
        nats=mesh.nats,
        bridging=mesh.bridging,
        region=mesh.region,
        address=prepared.advertised,
        token=prepared.secrets.peer_token,
        judge=keyring,
        tls=prepared.tls,
        accepted_max=share_descriptors(mesh.http.connections_max).peers,
    )
    config = MeshConfig(
        name=mesh.self_name,
        address=prepared.advertised,
        cluster_name=mesh.cluster_name,
        region=mesh.region,
        zone=mesh.zone,
        full_mesh_threshold=mesh.full_mesh_threshold,
        prefix_sync=mesh.prefix_sync,
        gossip=mesh.gossip,
        rate_limit=mesh.rate_limit,
        startup=mesh.startup,
        defaults=prepared.settings.defaults(),
    )
    sources.snapshots = _snapshots(mesh.storage)
    runtime = MeshRuntime(
        config,
        transport=transport,
        seeds=_seeds(mesh),
        snapshots=sources.snapshots,
        seeds_refresh_s=mesh.discovery.refresh_s,
    )
    service = Service(
        runtime, shut_down=end.asked.set, sources=sources, has_grace=mesh.http.grace_s > 0
    )
    # First, so that nothing has to be ended when one cannot be served.
    async with serve_plugs(prepared.plugs, service):
        try:
            await runtime.start()
        except OSError as error:
            raise StartError(_reason(error)) from None
        return await _run_node(prepared, runtime, transport, service, end=end, keyring=keyring)


async def _run_node(
    prepared: _Prepared,
    runtime: MeshRuntime,
    transport: PeerCarrier,
    service: Service,
    *,
    end: _End,
    keyring: Keyring,
) -> int:
    """Answer HTTP for a node that has started until told to end; return the exit code."""
    mesh, sources = prepared.settings.mesh, service.sources
    mounted = mounted_of(transport)
    gossip = None if mounted is None else mounted.endpoint
    app = build_app(service, secrets=keyring, gossip=gossip, http=mesh.http)
    reload = _reloader(prepared, keyring, transport)
    async with (
        _http(app, prepared, service, end=end, reload=reload) as server,
        companions(runtime, sources=sources),
    ):
        ended = asyncio.create_task(runtime.wait_stopped())
        asked = asyncio.create_task(end.asked.wait())
        await asyncio.wait((ended, asked), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        service.is_draining = True
        if not ended.done():
            await _drain(server, prepared, end)
        service.is_leaving = True
        # An end takes under 6 s beside that, whatever hangs.
        limit_s = LEAVE_TIMEOUT_S + mesh.gossip.leave_handover_s
        await end.wait_unless_hurried(runtime.stop(), limit_s=limit_s)
        ended.cancel()
        await asyncio.wait((ended,))
    error = None if ended.cancelled() else ended.exception()
    if isinstance(error, NameConflictError):
        raise StartError(str(error))
    is_well = error is None and not end.hurried.is_set()
    return 0 if is_well else EXIT_FAILURE  # the runtime has logged what failed


def _reloader(
    prepared: _Prepared,
    keyring: Keyring,
    transport: PeerCarrier | None,
) -> Callable[[], None]:
    """Make what reads tokens and certificates again; what cannot be read stays as it was."""

    def reload() -> None:
        log = get_logger()
        try:
            secrets = prepared.reread()
            keyring.replace(secrets)
        except ConfigError as error:
            message = "the tokens stay as they are"
            log.error(message, detail=str(error))  # noqa: TRY400 - a mistake in a file, no bug
            return
        if transport is not None:
            transport.present(secrets.peer_token)
        log.info("the tokens were read again")
        if prepared.tls is not None:
            _read_again(prepared.tls.reload, "the certificates")
        for plug in prepared.plugs:
            if plug.files:
                _read_again(plug.reload, "the rules")

    return reload


def _read_again(reload: Callable[[], None], what: str) -> None:
    log = get_logger()
    try:
        reload()
    except ConfigError as error:
        message = f"{what} stay as they are"
        log.error(message, detail=str(error))  # noqa: TRY400 - a mistake in a file, no bug
    else:
        message = f"{what} were read again"
        log.info(message)


def _seeds(mesh: MeshSettings) -> Sequence[str] | Discovery:
    found = mesh.discovery
    sources: list[Discovery] = []
    if found.dns_names:
        sources.append(DnsSeeds(found.dns_names))
    if found.srv_names:
        sources.append(SrvSeeds(found.srv_names))
    if found.file is not None:
        sources.append(FileSeeds(found.file))
    return SeveralSources([FixedSeeds(mesh.init_peer), *sources]) if sources else mesh.init_peer


def _snapshots(storage: StorageSettings) -> SnapshotFile | None:
    if storage.path is None:
        return None
    return SnapshotFile(storage.path, interval_s=storage.interval_s)


@contextlib.asynccontextmanager
async def _http(
    app: Starlette,
    prepared: _Prepared,
    service: Service,
    *,
    end: _End,
    reload: Callable[[], None],
) -> AsyncIterator[HttpServer]:
    """Answer HTTP inside the block, and close it at the end; signals ask for the end."""
    settings = prepared.settings.mesh.http
    callers_max = share_descriptors(settings.connections_max).callers
    server = HttpServer(
        traced(app), settings=settings, connections_max=callers_max, tls=prepared.tls
    )
    service.sources.gate = server.gate
    loop = asyncio.get_running_loop()

    def end_soon() -> None:
        if service.is_draining:
            end.hurried.set()
            server.hurry()
        service.shut_down()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end_soon)
    loop.add_signal_handler(signal.SIGHUP, reload)
    serving = asyncio.create_task(server.serve(sockets=[prepared.listener]))
    watching = asyncio.create_task(watch_files(prepared.watched, reload))
    log = get_logger()
    log.info(
        "listening",
        name=prepared.settings.mesh.self_name,
        address=prepared.listening,
        advertised=prepared.advertised,
    )
    try:
        yield server
    finally:
        watching.cancel()
        server.should_exit = True
        await serving
        log.info("ended")
