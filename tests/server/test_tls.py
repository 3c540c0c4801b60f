"""TLS for callers and peers over real sockets: who gets in, and what is shown after a change."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
from attrs import frozen
from support.servers import TOKEN, Launcher, Node, eventually

from meshlib.errors import ConfigError
from meshlib_server.access import Tls, TlsSettings

NAME = "mesh.test"
AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@frozen
class Files:
    """The certificate of one node, and the authority of all."""

    certificate: Path
    key: Path
    authority: Path

    def variables(self, **more: str) -> dict[str, str]:
        """Return the settings that name them."""
        return {
            "MESH_TLS_CERTIFICATE_FILE": str(self.certificate),
            "MESH_TLS_KEY_FILE": str(self.key),
            "MESH_TLS_CA_FILE": str(self.authority),
            "MESH_TLS_PEER_NAME": NAME,
            **more,
        }

    def issue(self, authority: trustme.CA, *names: str, expires: dt.datetime | None = None) -> None:
        """Write a new certificate in the place of the old one."""
        issued = authority.issue_cert(*names, not_after=expires)
        issued.private_key_pem.write_to_path(str(self.key))
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        fresh = self.certificate.with_suffix(".new")
        fresh.write_bytes(chain)
        fresh.replace(self.certificate)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """The authority of the cluster."""
    return trustme.CA()


def files_in(folder: Path, authority: trustme.CA, *names: str, **kwargs: Any) -> Files:
    """Write a certificate and the authority into a folder."""
    folder.mkdir(exist_ok=True)
    files = Files(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")
    authority.cert_pem.write_to_path(str(files.authority))
    files.issue(authority, *(names or (NAME, "127.0.0.1")), **kwargs)
    return files


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """Make a context of a caller that trusts an authority and shows no certificate."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def secured(node: Node, authority: trustme.CA) -> Node:
    """Let a node's client speak TLS."""
    node.client.close()
    node.client = httpx2.Client(
        base_url=f"https://{node.address}",
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=10.0,
        trust_env=False,
        verify=trusting(authority),
    )
    return node


def shown_by(node: Node, authority: trustme.CA) -> int:
    """Connect, and return the number of the certificate that is shown."""
    with (
        socket.create_connection(("127.0.0.1", node.port), timeout=10) as sock,
        trusting(authority).wrap_socket(sock, server_hostname="127.0.0.1") as wrapped,
    ):
        shown = wrapped.getpeercert()
    assert shown is not None
    return int(str(shown["serialNumber"]), 16)


def pair(
    launcher: Launcher, first: dict[str, str], second: dict[str, str], authority: trustme.CA
) -> tuple[Node, Node]:
    """Start two nodes that know each other, each with its own settings."""
    ports = launcher.free_ports(2)
    nodes = tuple(
        secured(launcher.node(name, port=port, peers=[other], environment=environment), authority)
        for name, port, other, environment in (
            ("one", ports[0], ports[1], first),
            ("two", ports[1], ports[0], second),
        )
    )
    for node in nodes:
        node.spawn()
    for node in nodes:
        node.await_answer()
    return nodes[0], nodes[1]


def know_each_other(*nodes: Node) -> bool:
    """Tell whether each sees both."""
    return all(node.statuses() == {"one": "Alive", "two": "Alive"} for node in nodes)


@pytest.fixture(scope="module")
def mutual(
    tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA
) -> Iterator[tuple[Node, Node, Files]]:
    """Two nodes that show each other their certificates, and the files of the first."""
    folder = tmp_path_factory.mktemp("tls")
    launcher = Launcher(directory=folder)
    files = [files_in(folder / name, authority) for name in ("one", "two")]
    try:
        one, two = pair(launcher, files[0].variables(), files[1].variables(), authority)
        eventually(lambda: know_each_other(one, two), "they meet")
        yield one, two, files[0]
    finally:
        launcher.stop()


@pytest.mark.slow
def test_peers_that_show_each_other_certificates_are_one_cluster(
    mutual: tuple[Node, Node, Files],
) -> None:
    """And callers, who need none, are answered over TLS."""
    one, two, _ = mutual

    one.request("POST", "/mesh/config", {"key": "tls", "value": "01"})

    eventually(lambda: two.client.get("/mesh/config/tls").status_code == 200, "it arrives")


@pytest.mark.slow
def test_who_speaks_no_tls_is_closed(mutual: tuple[Node, Node, Files]) -> None:
    """Without an answer, and without any harm to the others."""
    one, _, _ = mutual
    with socket.create_connection(("127.0.0.1", one.port), timeout=10) as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = sock.recv(1000)

    assert not answer.startswith(b"HTTP")
    one.get("/mesh/health")


@pytest.mark.slow
def test_a_peer_without_a_certificate_is_403(
    mutual: tuple[Node, Node, Files], authority: trustme.CA
) -> None:
    """Though it has the peer token: both are asked for."""
    one, _, _ = mutual
    upgrade = {
        "Authorization": "Bearer peer-token-1", "Connection": "Upgrade", "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }  # fmt: skip
    answer = one.client.get("/mesh/gossip", headers=upgrade)

    assert (403, "forbidden") == (answer.status_code, answer.json()["code"])


@pytest.mark.slow
def test_a_connection_that_is_closed_after_its_answer_is_closed_at_once(
    mutual: tuple[Node, Node, Files], authority: trustme.CA
) -> None:
    """TLS has no half-closed connections: the end comes behind the answer, not 5 s later."""
    one, _, _ = mutual
    with (
        socket.create_connection(("127.0.0.1", one.port), timeout=4) as sock,
        trusting(authority).wrap_socket(sock, server_hostname="127.0.0.1") as wrapped,
    ):
        wrapped.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: wrapped.recv(1000), b""))

    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["another authority", "expired", "another name"])
def test_a_peer_with_a_wrong_certificate_stays_outside(
    fault: str, own_launcher: Launcher, tmp_path: Path, authority: trustme.CA
) -> None:
    """Whoever dials, the other side refuses; and the wrong one has its own certificate alone."""
    right = files_in(tmp_path / "right", authority)
    issuer = trustme.CA() if fault == "another authority" else authority
    names = ("other.test", "127.0.0.1") if fault == "another name" else (NAME, "127.0.0.1")
    expires = AGO + dt.timedelta(days=1) if fault == "expired" else None
    wrong = files_in(tmp_path / "wrong", issuer, *names, expires=expires)
    authority.cert_pem.write_to_path(str(wrong.authority))  # it trusts those who do not trust it
    inside = secured(own_launcher.node("one", environment=right.variables()), authority)
    inside.start()
    outside = own_launcher.node("two", peers=[inside.port], environment=wrong.variables())
    outside.spawn()

    def was_refused() -> bool:
        text = inside.log.read_text() + outside.log.read_text()
        return "handshake failed" in text or "certificate" in text

    eventually(was_refused, "it was refused")
    assert {"one": "Alive"} == inside.statuses()
    assert outside.process is not None
    assert outside.process.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("how", ["signal", "watch"])
def test_certificates_and_tokens_are_replaced_under_traffic(
    how: str, own_launcher: Launcher, tmp_path: Path, authority: trustme.CA
) -> None:
    """No request is lost; connections from then on are shown the new one; peers stay together."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN} admin\n")
    files = [files_in(tmp_path / name, authority) for name in ("one", "two")]
    more = {"MESH_TOKENS": "", "MESH_AUTH_TOKENS_FILE": str(tokens)}
    one, two = pair(own_launcher, files[0].variables(**more), files[1].variables(**more), authority)
    eventually(lambda: know_each_other(one, two), "they meet")
    before = shown_by(one, authority)
    statuses: list[int] = []
    is_over = threading.Event()

    def ask() -> None:
        with httpx2.Client(verify=trusting(authority), trust_env=False) as client:
            while not is_over.is_set():
                for _ in range(5):  # some on a connection that is kept, some on new ones
                    answer = client.get(f"https://{one.address}/mesh/health", headers=headers)
                    statuses.append(answer.status_code)
                with httpx2.Client(verify=trusting(authority), trust_env=False) as fresh:
                    answer = fresh.get(f"https://{one.address}/mesh/health", headers=headers)
                    statuses.append(answer.status_code)

    headers = {"Authorization": f"Bearer {TOKEN}"}
    asking = threading.Thread(target=ask)
    asking.start()
    tokens.write_text(f"{TOKEN} admin\nnew-token read\n")
    files[0].issue(authority, NAME, "127.0.0.1")
    if how == "signal":
        assert one.process is not None
        os.kill(one.process.pid, signal.SIGHUP)
    try:
        eventually(lambda: shown_by(one, authority) != before, "the new one is shown")
        reading = {"Authorization": "Bearer new-token"}
        eventually(
            lambda: one.client.get("/mesh/health", headers=reading).status_code == 200,
            "the new token opens",
        )
        assert 403 == one.client.post("/mesh/shutdown", headers=reading).status_code
        count = len(statuses)
        eventually(lambda: len(statuses) > count + 20, "requests go on")
    finally:
        is_over.set()
        asking.join(20)

    assert {200} == set(statuses)
    assert know_each_other(one, two)


def test_a_certificate_that_cannot_be_read_leaves_the_old_one(
    tmp_path: Path, authority: trustme.CA
) -> None:
    """And says which file it is, and why."""
    files = files_in(tmp_path, authority)
    tls = Tls(TlsSettings(certificate_file=str(files.certificate), key_file=str(files.key)))
    before = tls.server
    files.key.write_text("no key")

    with pytest.raises(ConfigError, match="cannot use the certificate in"):
        tls.reload()

    assert before is tls.server


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"key_file": "k"}, "tls.key_file needs tls.certificate_file"),
        ({"ca_file": "c"}, "tls.ca_file needs tls.certificate_file"),
        ({"peer_name": "n"}, "tls.peer_name needs tls.certificate_file"),
        (
            {"certificate_file": "c", "require_client_certificate": True},
            "tls.require_client_certificate needs tls.ca_file",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given: Any, message: str) -> None:
    """At the start, and not by a handshake that fails."""
    with pytest.raises(ConfigError, match=message):
        TlsSettings(**given)


def test_a_peer_must_have_shown_a_certificate_with_the_name(
    tmp_path: Path, authority: trustme.CA
) -> None:
    """Where there is an authority of peers; without one tokens alone decide."""
    files = files_in(tmp_path, authority)
    own: dict[str, Any] = {
        "certificate_file": str(files.certificate),
        "key_file": str(files.key),
    }
    named = Tls(TlsSettings(**own, ca_file=str(files.authority), peer_name=NAME))
    unnamed = Tls(TlsSettings(**own, ca_file=str(files.authority)))
    open_ = Tls(TlsSettings(**own))

    assert [False, False, True] == [named.admits_peer(each) for each in (None, {"x"}, {"x", NAME})]
    assert [False, True] == [unnamed.admits_peer(each) for each in (None, {"x"})]
    assert open_.admits_peer(None)


@pytest.mark.slow
def test_a_silent_connection_ends_though_it_never_spoke_tls(
    own_launcher: Launcher, tmp_path: Path, authority: trustme.CA
) -> None:
    """A handshake that is not made holds a place no longer than headers that do not come."""
    files = files_in(tmp_path, authority)
    quick = own_launcher.node("quick", environment=files.variables(MESH_HTTP_HEAD_TIMEOUT_S="0.5"))
    secured(quick, authority).start()
    with socket.create_connection(("127.0.0.1", quick.port), timeout=20) as sock:
        ended = sock.recv(100)

    assert b"" == ended
