"""One process, one node: start, run, leave, end.

Rule: the order of a start and of an end must live in this file. Started: settings, tokens,
socket, address, node, HTTP. Ended, however it was asked for: the node hands over, leaves and
flushes while HTTP still answers, then HTTP closes, and the exit code is 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import uvicorn
from attrs import frozen
from starlette.applications import Starlette

from meshlib import MeshConfig, MeshRuntime
from meshlib.aio import join_address, split_address
from meshlib.errors import NameConflictError
from meshlib.limits import FRAME_BYTES_MAX
from meshlib_server.addresses import advertised_address, listening_address
from meshlib_server.app import build_app
from meshlib_server.auth import Secrets, load_secrets
from meshlib_server.companions import companions
from meshlib_server.config import Settings, load_settings
from meshlib_server.logs import configure_logging, get_logger
from meshlib_server.protocol import JsonErrorsProtocol
from meshlib_server.service import Service
from meshlib_server.websocket import WebSocketTransport

__all__ = ["StartError", "run"]

LEAVE_TIMEOUT_S: Final = 2.5
"""For the node to leave and flush, beside `leave_handover_s` for handing over."""

HTTP_CLOSE_TIMEOUT_S: Final = 1
"""For requests that are still being answered."""

EXIT_FAILURE: Final = 1

KEEP_ALIVE_S: Final = 30
"""How long an idle connection of a caller is kept."""

BACKLOG: Final = 1024


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
    configure_logging()
    settings = load_settings(config_path, environment=environment, flags=flags)
    flagged = [path.removeprefix("mesh.auth.") for path in flags if path.startswith("mesh.auth.")]
    secrets = load_secrets(settings.mesh.auth, environment=environment, flagged=flagged)
    with _prepare(settings, secrets, is_insecure=is_insecure) as prepared:
        return asyncio.run(_serve(prepared))


@contextlib.contextmanager
def _prepare(settings: Settings, secrets: Secrets, *, is_insecure: bool) -> Iterator[_Prepared]:
    mesh = settings.mesh
    _check_secrets(settings, secrets, is_insecure=is_insecure)
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
        )


def _check_secrets(settings: Settings, secrets: Secrets, *, is_insecure: bool) -> None:
    if not secrets.operators and not is_insecure:
        raise StartError(
            "no token: set mesh.auth.tokens_file (--token-file) or MESH_TOKENS, "
            "or pass --insecure to run without on loopback"
        )
    if secrets.operators and not secrets.peers and settings.mesh.enabled:
        if settings.mesh.init_peer:
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


async def _serve(prepared: _Prepared) -> int:
    """Run the node and its HTTP until told to end; return the exit code."""
    if not prepared.settings.mesh.enabled:
        stopping = asyncio.Event()
        service = Service(None, shut_down=stopping.set)
        app = build_app(service, secrets=prepared.secrets)
        async with _http(app, prepared, service):
            await stopping.wait()
        return 0
    return await _serve_node(prepared)


async def _serve_node(prepared: _Prepared) -> int:
    stopping = asyncio.Event()
    transport = WebSocketTransport(prepared.advertised, token=prepared.secrets.peer_token)
    mesh = prepared.settings.mesh
    config = MeshConfig(
        name=mesh.self_name,
        address=prepared.advertised,
        cluster_name=mesh.cluster_name,
        region=mesh.region,
        zone=mesh.zone,
        full_mesh_threshold=mesh.full_mesh_threshold,
        gossip=mesh.gossip,
        rate_limit=mesh.rate_limit,
    )
    runtime = MeshRuntime(config, transport=transport, seeds=mesh.init_peer)
    await runtime.start()
    service = Service(runtime, shut_down=stopping.set)
    app = build_app(service, secrets=prepared.secrets, gossip=transport.endpoint)
    async with _http(app, prepared, service), companions(runtime, prepared.settings.models):
        ended = asyncio.create_task(runtime.wait_stopped())
        asked = asyncio.create_task(stopping.wait())
        await asyncio.wait((ended, asked), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        service.is_leaving = True
        # An end takes under 5 s beside that, whatever hangs.
        limit_s = LEAVE_TIMEOUT_S + mesh.gossip.leave_handover_s
        await asyncio.wait((asyncio.create_task(runtime.stop()),), timeout=limit_s)
        ended.cancel()
        await asyncio.wait((ended,))
    error = None if ended.cancelled() else ended.exception()
    if isinstance(error, NameConflictError):
        raise StartError(str(error))
    return 0 if error is None else EXIT_FAILURE  # the runtime has logged what failed


@contextlib.asynccontextmanager
async def _http(app: Starlette, prepared: _Prepared, service: Service) -> AsyncIterator[None]:
    """Answer HTTP inside the block, and close it at the end; signals ask for the end."""
    server = _Server(app)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.shut_down)
    serving = asyncio.create_task(server.serve(sockets=[prepared.listener]))
    log = get_logger()
    log.info(
        "listening",
        name=prepared.settings.mesh.self_name,
        address=prepared.listening,
        advertised=prepared.advertised,
    )
    try:
        yield
    finally:
        server.should_exit = True
        await serving
        log.info("ended")


class _Server(uvicorn.Server):
    """uvicorn, without its signal handling, which would end the process with a signal's code.

    Args:
        app: the application.
    """

    def __init__(self, app: Starlette) -> None:
        config = uvicorn.Config(
            app,
            http=JsonErrorsProtocol,
            ws="websockets-sansio",
            ws_max_size=FRAME_BYTES_MAX,
            ws_per_message_deflate=False,  # frames are small or already dense
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=HTTP_CLOSE_TIMEOUT_S,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield
