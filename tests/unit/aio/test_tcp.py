"""The TCP transport over real sockets: strangers, tokens, TLS, slow peers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import trustme
from support.transports import Eventually, NewTcp, Recorder

from meshlib.aio import LinkConfig, ListenerConfig, split_address
from meshlib.aio.framing import encode_frame, encode_hello
from meshlib.aio.listener import Listener
from meshlib.errors import ConfigError, StateError
from meshlib.limits import FRAME_BYTES_MAX

pytestmark = pytest.mark.anyio


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a bare connection, as a stranger would."""
    return await asyncio.open_connection(*split_address(address))


@contextlib.asynccontextmanager
async def stranger(
    address: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a bare connection for a while."""
    reader, writer = await connect(address)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Wait for the other side to close."""
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(1), 10) == b""
    return True


async def test_peers_with_the_same_token_understand_each_other(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """The token of the hello opens the connection."""
    one, other, heard = new_tcp(token="secret"), new_tcp(token="secret"), new_recorder()
    await one.start(new_recorder())
    await other.start(heard)

    one.send(other.address, b"hello")
    await eventually(lambda: heard.frames)

    assert 0 == other.counters.hellos_refused


async def test_a_peer_with_another_token_is_refused_and_counted(
    new_tcp: NewTcp,
    new_recorder: type[Recorder],
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing of it is delivered, it hears that its link broke, and no token is logged."""
    one, other = new_tcp(token="wrong-token"), new_tcp(token="right-token")
    heard_by_one, heard_by_other = new_recorder(), new_recorder()
    await one.start(heard_by_one)
    await other.start(heard_by_other)

    one.send(other.address, b"let me in")
    await eventually(lambda: heard_by_one.lost and other.counters.hellos_refused)

    assert [] == heard_by_other.frames
    assert 0 == sum("wrong-token" in line or "right-token" in line for line in caplog.messages)


async def test_a_refused_peer_is_not_dialled_in_a_circle(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """A link that breaks at once counts as failed, so the next sends wait for the pause."""
    links = LinkConfig(retry_first_s=30.0, retry_max_s=30.0)
    one, other = new_tcp(token="wrong", links=links), new_tcp(token="right")
    heard = new_recorder()
    await one.start(heard)
    await other.start(new_recorder())
    one.send(other.address, b"let me in")
    await eventually(lambda: heard.lost)

    assert not one.send(other.address, b"please")

    assert 1 == one.counters.dials


async def test_an_old_token_is_accepted_while_it_is_rotated(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """A node may accept more tokens than the one it shows."""
    one = new_tcp(token="old")
    other = new_tcp(token="new", accepted_tokens=["old"])
    heard = new_recorder()
    await one.start(new_recorder())
    await other.start(heard)

    one.send(other.address, b"hello")
    await eventually(lambda: heard.frames)


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 4, encode_frame(b"mesh\x07"), bytes(8)],
    ids=["http", "length", "version", "empty frame"],
)
async def test_a_connection_that_begins_with_garbage_is_closed(
    new_tcp: NewTcp, new_recorder: type[Recorder], garbage: bytes
) -> None:
    """What is no hello costs the connection, and is counted."""
    transport, heard = new_tcp(), new_recorder()
    await transport.start(heard)

    async with stranger(transport.address) as (reader, writer):
        writer.write(garbage)
        assert await is_closed(reader)

    assert ([], 1) == (heard.frames, transport.counters.hellos_refused)


@pytest.mark.parametrize(
    "garbage",
    [(FRAME_BYTES_MAX + 1).to_bytes(4) + b"x" * 100, bytes(4)],
    ids=["over the limit", "no bytes"],
)
async def test_a_bad_length_after_the_hello_closes_the_connection(
    new_tcp: NewTcp, new_recorder: type[Recorder], garbage: bytes
) -> None:
    """Frames before it are delivered; it is counted as malformed."""
    transport, heard = new_tcp(), new_recorder()
    await transport.start(heard)

    async with stranger(transport.address) as (reader, writer):
        writer.write(encode_hello(None) + encode_frame(b"good") + garbage)
        assert await is_closed(reader)

    assert ([b"good"], 1) == (heard.frames, transport.counters.frames_malformed)


async def test_a_connection_cut_within_a_frame_delivers_nothing_of_it(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """Half a frame is no frame."""
    transport, heard = new_tcp(), new_recorder()
    await transport.start(heard)

    async with stranger(transport.address) as (_, writer):
        writer.write(encode_hello(None) + encode_frame(b"whole") + (100).to_bytes(4) + b"half")
        await writer.drain()
    await eventually(lambda: heard.frames)

    assert [b"whole"] == heard.frames


async def test_a_connection_without_a_hello_is_closed_in_time(
    new_tcp: NewTcp, new_recorder: type[Recorder]
) -> None:
    """A stranger that says nothing, or half a hello, does not stay."""
    transport = new_tcp(listener=ListenerConfig(hello_timeout_s=0.1))
    await transport.start(new_recorder())

    async with stranger(transport.address) as (reader, writer):
        writer.write(encode_hello(None)[:3])
        assert await is_closed(reader)

    assert 1 == transport.counters.hellos_timed_out


async def test_connections_over_the_cap_are_closed_at_once(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """Those within it go on."""
    transport, heard = new_tcp(listener=ListenerConfig(accepted_max=1)), new_recorder()
    await transport.start(heard)

    async with stranger(transport.address) as (_, first):
        first.write(encode_hello(None))
        await eventually(lambda: transport.counters.connections_accepted == 1)
        async with stranger(transport.address) as (reader, _):
            assert await is_closed(reader)
        first.write(encode_frame(b"still here"))
        await eventually(lambda: heard.frames)

    assert 1 == transport.counters.connections_refused


async def test_a_closed_connection_makes_room_under_the_cap(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """The cap is on connections held, not on connections made."""
    transport, heard = new_tcp(listener=ListenerConfig(accepted_max=1)), new_recorder()
    await transport.start(heard)
    listener = transport._listener
    assert listener is not None

    for count in range(1, 4):
        async with stranger(transport.address) as (_, writer):
            writer.write(encode_hello(None) + encode_frame(b"hello"))
            await eventually(partial(lambda expected: len(heard.frames) == expected, count))
        await eventually(lambda: not listener._accepted)


async def test_strangers_push_out_the_oldest_stranger_only(
    new_tcp: NewTcp, new_recorder: type[Recorder]
) -> None:
    """A crowd without hellos cannot lock a peer out."""
    transport = new_tcp(listener=ListenerConfig(strangers_max=1, hello_timeout_s=60.0))
    await transport.start(new_recorder())

    async with stranger(transport.address) as (oldest, _), stranger(transport.address):
        assert await is_closed(oldest)


async def test_a_silent_connection_is_closed(new_tcp: NewTcp, new_recorder: type[Recorder]) -> None:
    """The host behind it may be gone, without a word."""
    transport = new_tcp(
        links=LinkConfig(idle_close_s=0.05), listener=ListenerConfig(silence_max_s=0.1)
    )
    await transport.start(new_recorder())

    async with stranger(transport.address) as (reader, writer):
        writer.write(encode_hello(None))
        assert await is_closed(reader)


async def test_a_sender_can_be_shown_the_door(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """Closing the sender of a frame closes the connection that it came on."""
    transport, heard = new_tcp(), new_recorder()
    await transport.start(heard)

    async with stranger(transport.address) as (reader, writer):
        writer.write(encode_hello(None) + encode_frame(b"rubbish"))
        await eventually(lambda: heard.senders)
        transport.close_sender(heard.senders[0])
        assert await is_closed(reader)


async def test_a_connection_that_nobody_acknowledges_is_broken_by_the_system(
    new_tcp: NewTcp, new_recorder: type[Recorder]
) -> None:
    """A cut leaves no connection that sleeps for minutes; where the system can tell."""
    one, other = new_tcp(links=LinkConfig(stall_s=7.5)), new_tcp()
    await other.start(new_recorder())

    connection: Any = await one._dial(other.address)
    dialled = connection._transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    bound_ms = option and dialled.getsockopt(socket.IPPROTO_TCP, option)
    await connection.close()

    assert (option and 7500) == bound_ms


async def test_what_is_not_acknowledged_is_sent_again_each_second(
    new_tcp: NewTcp, new_recorder: type[Recorder]
) -> None:
    """On a network that loses much a link is not silent for longer; where the system can."""
    one, other = new_tcp(), new_tcp()
    await other.start(new_recorder())

    connection: Any = await one._dial(other.address)
    found_ms = retry_max_ms(connection._transport.get_extra_info("socket"))
    await connection.close()

    with socket.socket() as plain:
        default_ms = retry_max_ms(plain)
    assert found_ms == (None if default_ms is None else 1000)


def retry_max_ms(sock: socket.socket) -> int | None:
    """Return the longest wait before a packet is sent again; None where it cannot be told."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, 44)  # TCP_RTO_MAX_MS of Linux 6.15
    except OSError:
        return None


async def test_an_idle_link_is_closed_without_alarm_and_dialled_again(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """Peers that are rarely sent to cost no connection, and their links are not lost."""
    one, other = new_tcp(links=LinkConfig(idle_close_s=0.05)), new_tcp()
    heard_by_one, heard = new_recorder(), new_recorder()
    await one.start(heard_by_one)
    await other.start(heard)

    one.send(other.address, b"first")
    await eventually(lambda: one.counters.links_closed_idle == 1)
    one.send(other.address, b"second")
    await eventually(lambda: len(heard.frames) == 2)

    assert ([], 2) == (heard_by_one.lost, one.counters.dials)


async def test_a_slow_peer_does_not_hold_up_the_others(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """One that reads nothing fills its own queue; frames to another pass at once."""
    one, other, heard = new_tcp(), new_tcp(), new_recorder()
    await one.start(new_recorder())
    await other.start(heard)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf_address = f"127.0.0.1:{deaf.getsockname()[1]}"
        await eventually(lambda: not one.send(deaf_address, b"x" * 1_000_000))

        one.send(other.address, b"swift")
        await eventually(lambda: heard.frames)

        assert one.counters.frames_dropped_queue_full >= 1


async def test_a_peer_that_takes_nothing_for_too_long_is_lost(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """A stalled link is broken, its queue dropped and counted."""
    one, heard = new_tcp(links=LinkConfig(stall_s=0.2)), new_recorder()
    await one.start(heard)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        await eventually(lambda: not one.send(address, b"x" * 1_000_000))
        await eventually(lambda: heard.lost)

    assert [address] == heard.lost
    assert one.counters.frames_dropped_unreachable > 0


async def test_sends_within_the_pause_after_a_failed_dial_are_dropped(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """Frames to an unreachable peer never pile up."""
    one, heard = new_tcp(links=LinkConfig(retry_first_s=30.0, retry_max_s=30.0)), new_recorder()
    await one.start(heard)
    one.send("127.0.0.1:1", b"anyone?")
    await eventually(lambda: heard.lost)

    results = [one.send("127.0.0.1:1", b"anyone?") for _ in range(5)]

    assert ([False] * 5, 6) == (results, one.counters.frames_dropped_unreachable)


async def test_a_peer_that_comes_back_is_reached_after_the_pause(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """The first retries are quick."""
    one, gone, heard = new_tcp(), new_tcp(), new_recorder()
    lost = new_recorder()
    await one.start(lost)
    await gone.start(new_recorder())
    address = gone.address
    await gone.close(drain_s=0)
    one.send(address, b"anyone?")
    await eventually(lambda: lost.lost)

    back = new_tcp(address)
    await back.start(heard)

    def is_heard() -> bool:
        one.send(address, b"again")
        return bool(heard.frames)

    await eventually(is_heard)


async def test_a_dial_that_hangs_is_given_up(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """A full backlog answers nothing; the attempt ends by its timeout and is reported."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as open_:
        address = f"127.0.0.1:{full.getsockname()[1]}"
        for _ in range(4):
            filler = open_.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(full.getsockname())
        one, heard = new_tcp(links=LinkConfig(dial_timeout_s=0.1)), new_recorder()
        await one.start(heard)

        one.send(address, b"anyone?")
        await eventually(lambda: heard.lost)

    assert 1 == one.counters.dials_failed


@pytest.mark.parametrize("address", ["nowhere", "no.such.host.invalid:1", "a" * 70 + ".x:1"])
async def test_an_address_that_cannot_be_resolved_is_lost(
    new_tcp: NewTcp,
    new_recorder: type[Recorder],
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
    address: str,
) -> None:
    """A bad address from a peer is an unreachable peer, not an error."""
    one, heard = new_tcp(), new_recorder()
    await one.start(heard)

    one.send(address, b"anyone?")
    await eventually(lambda: heard.lost)

    assert ([address], []) == (heard.lost, caplog.messages)


async def test_a_peer_that_answers_on_the_link_is_no_peer(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually
) -> None:
    """An accepting side has nothing to say; what talks back is cut off."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await eventually(lambda: heard.lost)
        writer.close()

    one, heard = new_tcp(), new_recorder()
    await one.start(heard)
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        one.send(f"127.0.0.1:{port}", b"hello")
        await eventually(lambda: heard.lost)

    assert 1 == one.counters.links_lost


async def test_addresses_kept_are_bounded(new_tcp: NewTcp, new_recorder: type[Recorder]) -> None:
    """A peer that names a thousand addresses does not make us keep them."""
    one = new_tcp(links=LinkConfig(peers_max=3))
    await one.start(new_recorder())

    results = [one.send(f"127.0.0.1:{port}", b"x") for port in range(1, 6)]

    assert [True] * 3 + [False] * 2 == results


async def test_a_port_in_use_is_an_error_of_the_start(
    new_tcp: NewTcp, new_recorder: type[Recorder]
) -> None:
    """The caller hears of it, and nothing is left open."""
    one = new_tcp()
    await one.start(new_recorder())

    with pytest.raises(OSError):
        await new_tcp(one.address).start(new_recorder())


async def test_listening_everywhere_needs_an_address_to_advertise(new_tcp: NewTcp) -> None:
    """0.0.0.0 is never told to peers."""
    with pytest.raises(ConfigError):
        new_tcp("0.0.0.0:0")


async def test_listening_everywhere_advertises_what_it_is_told(
    new_tcp: NewTcp, new_recorder: type[Recorder]
) -> None:
    """The port that was found stands in for 0."""
    one = new_tcp("0.0.0.0:0", advertise="127.0.0.1:0")
    await one.start(new_recorder())

    host, port = split_address(one.address)

    assert ("127.0.0.1", True) == (host, port > 0)


async def test_port_zero_has_no_address_before_the_start(new_tcp: NewTcp) -> None:
    """Asking too early is an error of the caller."""
    with pytest.raises(StateError):
        _ = new_tcp().address


async def test_tls_for_one_direction_only_is_refused(new_tcp: NewTcp) -> None:
    """Half a cluster in clear text is a mistake."""
    with pytest.raises(ConfigError):
        new_tcp(server_tls=ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))


def tls_contexts(authority: trustme.CA, *, has_client_certificate: bool = True) -> dict[str, Any]:
    """Make the contexts of a node that shows a certificate and asks for one."""
    certificate = authority.issue_cert("127.0.0.1")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.verify_mode = ssl.CERT_REQUIRED
    certificate.configure_cert(server)
    authority.configure_trust(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    if has_client_certificate:
        certificate.configure_cert(client)
    return {"server_tls": server, "client_tls": client}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def test_peers_of_one_authority_talk_over_tls(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually, authority: trustme.CA
) -> None:
    """Both certificates are checked, and large frames pass."""
    one, other = new_tcp(**tls_contexts(authority)), new_tcp(**tls_contexts(authority))
    heard = new_recorder()
    await one.start(new_recorder())
    await other.start(heard)
    frames = [b"x" * 500_000, b"small"]

    for frame in frames:
        one.send(other.address, frame)
    await eventually(lambda: len(heard.frames) == 2)

    assert frames == heard.frames


async def test_a_peer_without_a_client_certificate_is_refused(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually, authority: trustme.CA
) -> None:
    """A server that asks for certificates delivers nothing without one."""
    one = new_tcp(**tls_contexts(authority, has_client_certificate=False))
    other, heard, heard_by_one = new_tcp(**tls_contexts(authority)), new_recorder(), new_recorder()
    await one.start(heard_by_one)
    await other.start(heard)

    one.send(other.address, b"hello")
    await eventually(lambda: heard_by_one.lost and other.counters.hellos_refused)

    assert [] == heard.frames


async def test_a_server_of_another_authority_is_not_sent_to(
    new_tcp: NewTcp, new_recorder: type[Recorder], eventually: Eventually, authority: trustme.CA
) -> None:
    """The dialling side checks who answers before it shows its token."""
    one = new_tcp(token="secret", **tls_contexts(authority))
    other = new_tcp(token="secret", **tls_contexts(trustme.CA()))
    heard, heard_by_one = new_recorder(), new_recorder()
    await one.start(heard_by_one)
    await other.start(heard)

    one.send(other.address, b"hello")
    await eventually(lambda: heard_by_one.lost)

    assert [] == heard.frames


async def test_a_plain_connection_to_a_tls_listener_is_refused(
    new_tcp: NewTcp, new_recorder: type[Recorder], authority: trustme.CA
) -> None:
    """Clear text is no handshake."""
    transport, heard = new_tcp(**tls_contexts(authority)), new_recorder()
    await transport.start(heard)

    async with stranger(transport.address) as (reader, writer):
        writer.write(encode_hello(None) + encode_frame(b"hello"))
        await reader.read()

    assert ([], 1) == (heard.frames, transport.counters.hellos_refused)


async def test_a_handshake_that_never_ends_is_closed_in_time(
    new_tcp: NewTcp, new_recorder: type[Recorder], authority: trustme.CA
) -> None:
    """The time for a hello includes the handshake before it."""
    settings = tls_contexts(authority)
    transport = new_tcp(listener=ListenerConfig(hello_timeout_s=0.1), **settings)
    await transport.start(new_recorder())

    async with stranger(transport.address) as (reader, _):
        assert await is_closed(reader)

    assert 1 == transport.counters.hellos_timed_out


async def test_many_connections_at_once_leave_turns_for_everything_else(
    new_tcp: NewTcp, new_recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood that is always waiting would be all that a node does."""
    turn = 0
    taken: list[int] = []

    def take(_listener: Listener, accepted: socket.socket, _sender: str) -> None:
        accepted.close()
        taken.append(turn)

    monkeypatch.setattr(Listener, "_take", take)
    one = new_tcp(token="secret")
    await one.start(new_recorder())
    with contextlib.ExitStack() as stack:
        for _ in range(300):  # without a turn of the loop, so that all of them are waiting
            stack.enter_context(socket.create_connection(split_address(one.address)))
        async with asyncio.timeout(10):
            while len(taken) < 300:
                turn += 1
                await asyncio.sleep(0)

    assert max(taken.count(each) for each in set(taken)) <= 64
