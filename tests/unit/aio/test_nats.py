"""What is particular to frames over NATS: subjects, who is let in, what is no message of a link."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import nats
import pytest
import trustme
from nats.aio.client import Client
from support.real_nats import RealNats, real_nats
from support.transports import Eventually, Recorder

from meshlib.aio import (
    LinkConfig,
    LinkFault,
    ListenerConfig,
    NatsConfig,
    NatsCredentials,
    NatsTransport,
)
from meshlib.aio.framing import encode_hello
from meshlib.aio.nats.carrier import Carrier
from meshlib.aio.nats.settings import COUNT
from meshlib.aio.nats.subjects import inbox_of, is_reply_within
from meshlib.errors import ConfigError

pytestmark = pytest.mark.anyio

REPLY = "meshlib.in.stranger.0a"


class NewNats(Protocol):
    """Makes a transport that is closed at the end of the test."""

    def __call__(self, address: str = ..., **settings: Any) -> NatsTransport: ...


@pytest.fixture
async def new_nats(anyio_backend: str, shared_nats: RealNats) -> AsyncIterator[NewNats]:
    """Make transports on the server that all tests share; all are closed at the end."""
    made: list[NatsTransport] = []

    def new(address: str = "", **settings: Any) -> NatsTransport:
        address = address or f"node-{len(made)}:7000"
        transport = NatsTransport(address, **{"servers": [shared_nats.url], **settings})
        made.append(transport)
        return transport

    yield new
    for transport in made:
        await transport.close(drain_s=0)


@pytest.fixture
async def stranger(anyio_backend: str, shared_nats: RealNats) -> AsyncIterator[Client]:
    """A client of NATS that is no node."""
    client = await nats.connect(shared_nats.url)
    yield client
    await client.close()


async def test_addresses_never_share_a_subject() -> None:
    """Whatever stands in them, and none names a subject elsewhere."""
    addresses = [
        "10.0.0.1:1",
        "10-0.0.1:1",
        "10_2e0:1",
        "[::1]:1",
        "a.*:1",
        "a.>:1",
        "a b:1",
        "é:1",
    ]

    inboxes = [inbox_of("meshlib.x", address) for address in addresses]

    assert len(set(inboxes)) == len(addresses)
    assert all(is_reply_within("meshlib.x", f"{inbox}.0a") for inbox in inboxes)


@pytest.mark.parametrize(
    "subject", ["", "$SYS.x", "meshlib.in", "meshlib.in.a", "other.in.a.0", "meshlib.in.a.*",
                "meshlib.in.>.0", "meshlib.in.a.0.b"]
)  # fmt: skip
async def test_a_reply_elsewhere_is_none(subject: str) -> None:
    """Nobody makes a node write to another subject."""
    assert not is_reply_within("meshlib", subject)


@pytest.mark.parametrize(
    "wrong",
    [
        {"servers": []}, {"servers": ["10.0.0.1:4222"]}, {"servers": ["http://a:1"]},
        {"servers": ["nats://"]}, {"servers": ["nats://a:x"]}, {"subject": "a..b"},
        {"subject": "a.*"}, {"subject": ""}, {"subject": "a" * 200}, {"token": ""},
        {"address": "0.0.0.0:1"}, {"address": "a:0"}, {"address": "a"},
        {"links": LinkConfig(idle_close_s=500)},
    ],
)  # fmt: skip
async def test_settings_that_cannot_hold_are_refused(wrong: dict[str, Any]) -> None:
    """At once, before anything is started."""
    with pytest.raises(ConfigError):
        NatsTransport(**{"address": "a:1", "servers": ["nats://secret@127.0.0.1:1"], **wrong})


async def test_no_secret_is_in_what_is_shown() -> None:
    """Neither of the credentials nor of a URL that cannot be one."""
    assert "secret" not in repr(NatsCredentials(user="secret-name", password="secret"))
    with pytest.raises(ConfigError) as caught:
        NatsTransport("a:1", servers=["http://user:secret@a:1"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("half", [{"user": "u"}, {"password": "p"}, {"token": "t", "file": "f"}])
async def test_credentials_are_one_way(half: dict[str, str]) -> None:
    """A whole one, and not two."""
    with pytest.raises(ConfigError):
        NatsCredentials(**half)


async def test_a_window_holds_several_pieces() -> None:
    """Or a link would wait for an acknowledgement after each."""
    with pytest.raises(ConfigError):
        NatsConfig(window_bytes=100, piece_bytes_max=50)


async def test_an_address_that_is_taken_is_told(
    new_nats: NewNats, new_recorder: type[Recorder]
) -> None:
    """As over TCP; and the one that has it is not disturbed."""
    one, twin = new_nats("same:1"), new_nats("same:1")
    await one.start(new_recorder())

    with pytest.raises(OSError, match="another process") as caught:
        await twin.start(new_recorder())

    assert errno.EADDRINUSE == caught.value.errno
    await one.close(drain_s=0)
    await twin.start(new_recorder())


async def test_no_server_is_an_error_of_the_start(new_recorder: type[Recorder]) -> None:
    """Who cannot reach NATS is told so, and may start later."""
    settings = NatsConfig(connect_timeout_s=0.1)
    one = NatsTransport("a:1", servers=["nats://127.0.0.1:1"], nats=settings)

    with pytest.raises(OSError, match="cannot reach NATS"):
        await one.start(new_recorder())
    with pytest.raises(OSError, match="cannot reach NATS"):
        await one.start(new_recorder())


async def test_another_token_is_refused_and_told(
    new_nats: NewNats, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """The frame is not delivered."""
    one, other = new_nats(token="one"), new_nats(token="two", accepted_tokens=["three"])
    heard, heard_by_other = new_recorder(), new_recorder()
    await one.start(heard)
    await other.start(heard_by_other)

    one.send(other.address, b"hello")
    await eventually(lambda: heard.lost)

    assert [LinkFault.WRONG_TOKEN] == [failure and failure.fault for failure in heard.failures]
    assert (1, []) == (other.counters.hellos_refused, heard_by_other.frames)

    one.present("three")
    await eventually(lambda: one.send(other.address, b"hello") or heard_by_other.frames)
    await eventually(lambda: heard_by_other.frames)


async def test_clusters_of_two_subjects_do_not_meet(
    new_nats: NewNats, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """Though they share a server and an address."""
    one, other = new_nats("a:1", subject="meshlib.x"), new_nats("b:1", subject="meshlib.y")
    heard = new_recorder()
    await one.start(heard)
    await other.start(new_recorder())

    one.send("b:1", b"hello")
    await eventually(lambda: heard.lost)

    assert [LinkFault.ABSENT] == [failure and failure.fault for failure in heard.failures]


@pytest.mark.parametrize(
    "payload",
    [
        b"d" + COUNT.pack(5) + b"\x00\x00\x00\x01x",  # a gap
        b"d" + COUNT.pack(0) + b"\x00\x00\x00\x00",  # a frame of no bytes
        b"d" + COUNT.pack(0) + b"\xff\xff\xff\xff",  # a frame of four gigabytes
        b"d" + COUNT.pack(0),
        b"d",
        b"",
        b"?",
    ],
)
async def test_what_is_no_message_of_a_link_ends_it(
    new_nats: NewNats, new_recorder: type[Recorder], stranger: Client, payload: bytes
) -> None:
    """The sender is told, and nothing is delivered."""
    one, heard = new_nats(), new_recorder()
    await one.start(heard)
    answers = await stranger.subscribe(REPLY)
    inbox = inbox_of("meshlib", one.address)
    await stranger.publish(inbox, b"h" + encode_hello(None)[4:], reply=REPLY)
    welcome = await answers.next_msg(timeout=5)

    await stranger.publish(inbox, payload, reply=REPLY)
    answer = await answers.next_msg(timeout=5)

    assert (b"w", b"c", []) == (welcome.data[:1], answer.data[:1], heard.frames)


async def test_a_link_that_was_never_made_is_told_to_be_none(
    new_nats: NewNats, new_recorder: type[Recorder], stranger: Client
) -> None:
    """As one of a node that has restarted since."""
    one, heard = new_nats(), new_recorder()
    await one.start(heard)
    answers = await stranger.subscribe(REPLY)

    piece = b"d" + COUNT.pack(0) + b"\x00\x00\x00\x01x"
    await stranger.publish(inbox_of("meshlib", one.address), piece, reply=REPLY)

    assert b"c" == (await answers.next_msg(timeout=5)).data
    assert [] == heard.frames


async def test_who_sends_more_than_its_window_is_cut_off(
    new_nats: NewNats, new_recorder: type[Recorder], stranger: Client, eventually: Eventually
) -> None:
    """While the node reads nothing, a link holds no more than was granted."""
    one, heard = new_nats(), new_recorder()
    await one.start(heard)
    heard.room.clear()
    answers = await stranger.subscribe(REPLY)
    inbox = inbox_of("meshlib", one.address)
    await stranger.publish(inbox, b"h" + encode_hello(None)[4:], reply=REPLY)
    window = COUNT.unpack((await answers.next_msg(timeout=5)).data[1:])[0]
    frame = (50_000).to_bytes(4) + b"x" * 50_000

    for number in range(window // len(frame) + 2):
        await stranger.publish(inbox, b"d" + COUNT.pack(number) + frame, reply=REPLY)
    await eventually(lambda: one.counters.frames_malformed)

    assert 1 == len(heard.frames)


async def test_a_flood_of_hellos_makes_no_more_links_than_are_granted(
    new_nats: NewNats, new_recorder: type[Recorder], stranger: Client, eventually: Eventually
) -> None:
    """The rest is refused, and counted."""
    one = new_nats(listener=ListenerConfig(accepted_max=10))
    await one.start(new_recorder())

    for number in range(30):
        hello = b"h" + encode_hello(None)[4:]
        reply = f"meshlib.in.stranger.{number:x}"
        await stranger.publish(inbox_of("meshlib", one.address), hello, reply=reply)
    await eventually(lambda: one.counters.connections_refused == 20)

    assert 10 == one.counters.connections_accepted


async def test_a_user_and_a_password_are_shown(
    tmp_path: Path, new_recorder: type[Recorder]
) -> None:
    """Who shows another one does not start, and hears why without the secret."""
    config = ['authorization { user: mesh, password: "right" }']
    with real_nats(tmp_path, config=config) as server:
        settings = NatsConfig(connect_timeout_s=0.3)
        for password, is_let_in in (("wrong-secret", False), ("right", True)):
            shown = NatsCredentials(user="mesh", password=password)
            one = NatsTransport("a:1", servers=[server.url], credentials=shown, nats=settings)
            if is_let_in:
                await one.start(new_recorder())
                await one.close(drain_s=0)
                continue
            with pytest.raises(OSError, match="Authorization") as caught:
                await one.start(new_recorder())
            assert "secret" not in str(caught.value)


async def test_what_a_server_said_explains_the_break_that_follows(
    tmp_path: Path, new_recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of the two the client tells last is chance."""
    on_error = Carrier._on_error

    async def told_late(self: Carrier, error: Exception) -> None:
        await on_error(self, error)
        await on_error(self, ConnectionResetError(104, "Connection reset by peer"))

    monkeypatch.setattr(Carrier, "_on_error", told_late)
    with real_nats(tmp_path, config=['authorization { user: mesh, password: "right" }']) as server:
        settings = NatsConfig(connect_timeout_s=0.3)
        one = NatsTransport("a:1", servers=[server.url], nats=settings)
        with pytest.raises(OSError, match="Authorization"):
            await one.start(new_recorder())


async def test_frames_pass_over_tls(
    tmp_path: Path, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """With a certificate asked of the server and of the node."""
    authority = trustme.CA()
    of_server, of_node = authority.issue_cert("127.0.0.1"), authority.issue_cert("node")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    of_server.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    of_server.private_key_pem.write_to_path(tmp_path / "server.key")
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    of_node.configure_cert(tls)
    files = {"cert_file": "server.pem", "key_file": "server.key", "ca_file": "ca.pem"}
    lines = [f'{name}: "{tmp_path / file}"' for name, file in files.items()]
    with real_nats(tmp_path / "nats", config=["tls {", *lines, "verify: true", "}"]) as server:
        url = server.url.replace("nats:", "tls:")
        one, other = (NatsTransport(f"{n}:1", servers=[url], tls=tls) for n in "ab")
        heard = new_recorder()
        await one.start(new_recorder())
        await other.start(heard)
        one.send("b:1", b"hello")
        await eventually(lambda: heard.frames)
        await one.close(drain_s=0)
        await other.close(drain_s=0)
        bare = NatsTransport("c:1", servers=[url], nats=NatsConfig(connect_timeout_s=0.3))
        with pytest.raises(OSError, match="cannot reach NATS"):
            await bare.start(new_recorder())


async def test_a_silent_link_is_forgotten(
    new_nats: NewNats, new_recorder: type[Recorder], stranger: Client, eventually: Eventually
) -> None:
    """When the next one comes: its host may be gone, and it counts no more."""
    one = new_nats(
        listener=ListenerConfig(accepted_max=1, silence_max_s=0.05),
        links=LinkConfig(idle_close_s=0.01),
    )
    await one.start(new_recorder())
    inbox, hello = inbox_of("meshlib", one.address), b"h" + encode_hello(None)[4:]
    await stranger.publish(inbox, hello, reply=REPLY)
    await eventually(lambda: one.counters.connections_accepted == 1)

    for _ in range(500):
        await stranger.publish(inbox, hello, reply="meshlib.in.stranger.0b")
        await asyncio.sleep(0.01)
        if one.counters.connections_accepted == 2:
            break
    assert 2 == one.counters.connections_accepted
