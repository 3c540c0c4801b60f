"""TLS on the port for Envoys: what it shows, what it asks for, and what changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from attrs import frozen
from support.envoys import Caller

from meshlib import MemoryNetwork, MeshConfig, MeshRuntime
from meshlib.errors import ConfigError
from meshlib_server.adapters.envoy import EnvoyPlug
from meshlib_server.config import load_settings
from meshlib_server.plugs import EnvoySettings
from meshlib_server.service import Service


@frozen
class Shown:
    """The files of a port.

    Args:
        folder: where they are.
    """

    folder: Path

    def write(self, authority: trustme.CA) -> None:
        """Have a new certificate of an authority in them."""
        issued = authority.issue_cert("127.0.0.1")
        (self.folder / "key.pem").write_bytes(issued.private_key_pem.bytes())
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        (self.folder / "cert.pem").write_bytes(chain)

    def plug(self, *, callers: trustme.CA | None = None) -> EnvoyPlug:
        """Make a port that shows them, for callers of an authority where one is given."""
        if callers is not None:
            callers.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        return EnvoyPlug(
            EnvoySettings(
                listen="127.0.0.1:0",
                certificate_file=str(self.folder / "cert.pem"),
                key_file=str(self.folder / "key.pem"),
                ca_file=None if callers is None else str(self.folder / "ca.pem"),
            )
        )


@pytest.fixture
def authority() -> trustme.CA:
    """Whom Envoys trust."""
    return trustme.CA()


@pytest.fixture
def shown(tmp_path: Path, authority: trustme.CA) -> Shown:
    """A certificate of that authority."""
    made = Shown(tmp_path)
    made.write(authority)
    return made


@contextlib.asynccontextmanager
async def served(plug: EnvoyPlug) -> AsyncIterator[int]:
    """Serve a port inside the block, of a node that has not started; yield its number."""
    mesh = MeshRuntime(MeshConfig(name="n"), transport=MemoryNetwork().transport("n:1"))
    async with plug.serve(Service(mesh, shut_down=lambda: None)):
        yield plug.port


async def liveness(port: int, trusted: trustme.CA | None, **shown: Any) -> str:
    """Return what a caller hears, or how the connection failed."""
    target = f"127.0.0.1:{port}"
    # Channels of the same arguments would share a connection.
    options = [("grpc.use_local_subchannel_pool", 1)]
    if trusted is None:
        channel = grpc.aio.insecure_channel(target, options=options)
    else:
        credentials = grpc.ssl_channel_credentials(trusted.cert_pem.bytes(), **shown)
        channel = grpc.aio.secure_channel(target, credentials, options=options)
    async with channel:
        try:
            return await Caller(channel).health("liveness")
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)


def test_the_port_shows_its_certificate(shown: Shown, authority: trustme.CA) -> None:
    """Who trusts its authority is answered; others, and those without TLS, are not."""

    async def case() -> None:
        async with served(shown.plug()) as port:
            assert "SERVING" == await liveness(port, authority)
            assert "UNAVAILABLE" == await liveness(port, trustme.CA())
            assert "UNAVAILABLE" == await liveness(port, None)

    asyncio.run(case())


def test_with_an_authority_callers_show_theirs(shown: Shown, authority: trustme.CA) -> None:
    """A caller without a certificate, or with another authority's, gets nothing."""
    callers = trustme.CA()

    def of(issuer: trustme.CA) -> dict[str, bytes]:
        issued = issuer.issue_cert("envoy")
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        return {"private_key": issued.private_key_pem.bytes(), "certificate_chain": chain}

    async def case() -> None:
        async with served(shown.plug(callers=callers)) as port:
            assert "SERVING" == await liveness(port, authority, **of(callers))
            assert "UNAVAILABLE" == await liveness(port, authority)
            assert "UNAVAILABLE" == await liveness(port, authority, **of(trustme.CA()))

    asyncio.run(case())


def test_a_new_certificate_is_shown_to_who_comes_then(shown: Shown, authority: trustme.CA) -> None:
    """What is no pair leaves the old one; the files are among those that are looked at."""
    other = trustme.CA()

    async def case() -> None:
        plug = shown.plug()
        assert [str(shown.folder / name) for name in ("cert.pem", "key.pem")] == list(plug.files)
        async with served(plug) as port:
            assert "SERVING" == await liveness(port, authority)
            shown.write(other)
            plug.reload()
            assert "SERVING" == await liveness(port, other)
            assert "UNAVAILABLE" == await liveness(port, authority)
            (shown.folder / "key.pem").unlink()
            with pytest.raises(ConfigError):
                plug.reload()
            assert "SERVING" == await liveness(port, other)

    asyncio.run(case())


def test_what_is_no_certificate_is_said_at_the_start(tmp_path: Path) -> None:
    """And so is a key without one."""
    (tmp_path / "cert.pem").write_text("nothing")
    (tmp_path / "key.pem").write_text("nothing")
    with pytest.raises(ConfigError):
        Shown(tmp_path).plug()
    with pytest.raises(ConfigError, match=r"mesh\.envoy\.ca_file: needs"):
        load_settings(None, environment={"MESH_ENVOY_CA_FILE": "ca.pem"}, flags={})
