"""Both sides in one: NatsTransport."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import ssl
from collections.abc import Collection
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from meshlib.aio.framing import TokenCheck, TokenJudge, encode_hello
from meshlib.aio.links import Dialler, LinkConfig
from meshlib.aio.listener import ListenerConfig
from meshlib.aio.nats.accepting import IncomingLinks
from meshlib.aio.nats.carrier import Carrier, Msg
from meshlib.aio.nats.dialling import OutgoingStream
from meshlib.aio.nats.settings import FINISH, NatsAccess, NatsConfig, NatsCredentials
from meshlib.aio.nats.subjects import checked_root, inbox_of, is_reply_within
from meshlib.aio.transport import (
    LinkFailure,
    LinkFault,
    Receiver,
    is_unspecified,
    join_address,
    split_address,
)
from meshlib.arguments import check_kind, check_text
from meshlib.errors import ConfigError, RejectReason, StateError, check_several

__all__ = ["NatsTransport"]

_logger = logging.getLogger(__name__)

_SCHEMES: Final = ("nats", "tls", "ws", "wss")
_HELLO_LENGTH_BYTES: Final = 4
_TAKEN_S: Final = 0.5
"""How long another process that has the address may take to say so."""


class NatsTransport(Dialler):
    """Carries frames over NATS: a `Transport`.

    Each node takes frames on a subject of its own, made of its address. A node is in reach while
    it answers: who has not subscribed is told as `LinkFault.ABSENT`, and while NATS itself cannot
    be reached, nobody is held to be silent.

    Args:
        address: `host:port`, unique within the cluster: what peers and seeds call this node.
            Nothing listens there on this transport's account.
        servers: URLs such as `nats://10.0.0.1:4222` or `tls://nats.example:4222`; those of one
            NATS cluster. One that is gone is replaced by another.
        subject: the subject below which the cluster's are, the same on every node; a NATS user
            needs to publish and subscribe to `<subject>.in.>` and nothing else.
        token: the secret that this node shows to its peers and asks of them; None: none.
        accepted_tokens: further tokens that peers may show, while the token is being changed.
        judge: tells which tokens are accepted, in place of those two: asked for each link.
        tls: for the connection to NATS; None: as the URLs and the servers say.
        tls_hostname: the name that the servers' certificates must have; None: that of the URL.
        credentials: what is shown to NATS; None: what the URLs hold, if anything.
        links: how outgoing links are kept.
        listener: what is granted to peers: `accepted_max` and `silence_max_s`.
        nats: how the connection to NATS is kept.
        rng: for the jitter of retries and the names of links.

    Raises:
        ConfigError: an address that cannot be a node's, no server, a URL or subject that cannot
            be one, or an empty or oversized token.
        InvalidTypeError: an argument of another type, or one text in place of several.
    """

    def __init__(
        self,
        address: str,
        *,
        servers: Collection[str],
        subject: str = "meshlib",
        token: str | None = None,
        accepted_tokens: Collection[str] = (),
        judge: TokenJudge | None = None,
        tls: ssl.SSLContext | None = None,
        tls_hostname: str | None = None,
        credentials: NatsCredentials | None = None,
        links: LinkConfig | None = None,
        listener: ListenerConfig | None = None,
        nats: NatsConfig | None = None,
        rng: random.Random | None = None,
    ) -> None:
        for name, text in (("token", token), ("tls_hostname", tls_hostname)):
            if text is not None:
                check_text(name, text)
        kinds: tuple[tuple[str, object, type, str], ...] = (
            ("tls", tls, ssl.SSLContext, "an ssl.SSLContext"),
            ("credentials", credentials, NatsCredentials, "NatsCredentials"),
            ("links", links, LinkConfig, "a LinkConfig"),
            ("listener", listener, ListenerConfig, "a ListenerConfig"),
            ("nats", nats, NatsConfig, "a NatsConfig"),
            ("rng", rng, random.Random, "a random.Random"),
        )
        for name, value, kind, wanted in kinds:
            if value is not None:
                check_kind(name, value, kind, wanted=wanted)
        self._address = _checked_address(address)
        check_several("accepted_tokens", accepted_tokens)
        for accepted in accepted_tokens:
            check_text("an accepted token", accepted)
        self._access = NatsAccess(
            servers=_checked_servers(servers),
            tls=tls,
            tls_hostname=tls_hostname,
            credentials=credentials or NatsCredentials(),
            name=f"meshlib {self._address}",
        )
        self._root = checked_root(subject)
        self._inbox = inbox_of(self._root, self._address)
        self.present(token)
        self._tokens = judge or TokenCheck([*([token] if token else []), *accepted_tokens])
        self._config = nats or NatsConfig()
        self._granted = listener or ListenerConfig()
        self._rng = rng or random.Random()
        super().__init__(config=links, rng=self._rng)
        if self._granted.silence_max_s <= self._links.config.idle_close_s:
            raise ConfigError("silence_max_s must be over idle_close_s")
        self._streams: dict[str, OutgoingStream] = {}
        self._carrier: Carrier | None = None
        self._incoming: IncomingLinks | None = None
        self._is_told_up = True
        self._settling: asyncio.TimerHandle | None = None
        self._taken: asyncio.Future[bool] | None = None

    @property
    def address(self) -> str:
        """What peers call this node, as `host:port`."""
        return self._address

    @property
    def is_up(self) -> bool:
        """Whether NATS can be reached, as far as is known."""
        return self._carrier is not None and self._carrier.is_up

    def present(self, token: str | None) -> None:
        """Show another token to peers that are dialled from now on; None shows none.

        Raises:
            ConfigError: an empty token, or one that does not fit.
        """
        self._hello = encode_hello(token)[_HELLO_LENGTH_BYTES:]

    async def start(self, receiver: Receiver) -> None:
        """Connect to NATS, and deliver to `receiver` from now on.

        Raises:
            OSError: NATS cannot be reached or does not let this node in, or another process has
                this address. Nothing was started.
            StateError: started before.
        """
        if self._carrier is not None:
            raise StateError("the transport was started before")
        carrier = self._carrier = Carrier(
            self._access,
            config=self._config,
            handlers={f"{self._inbox}.*": self._heard_reply},
            changed=self._carrier_changed,
        )
        self._incoming = IncomingLinks(
            receiver,
            carrier=carrier,
            tokens=self._tokens,
            counters=self.counters,
            granted=self._granted,
            config=self._config,
            is_reply=lambda subject: is_reply_within(self._root, subject),
        )
        self._begin(receiver)
        try:
            await carrier.open()
            await self._claim(carrier)
        except BaseException:
            await carrier.close()
            self._carrier = self._incoming = self._receiver = None
            raise

    def close_sender(self, sender: str, *, reason: RejectReason | None = None) -> None:
        """End the incoming link that a frame came on; see `Transport.close_sender`."""
        if self._incoming is not None:
            self._incoming.close_sender(sender, reason=reason)

    async def close(self, *, drain_s: float) -> None:
        """Take no further link, send what is queued for up to `drain_s` seconds, and close."""
        if self._incoming is None or self._carrier is None:
            return
        self._incoming.stop_accepting()
        await self._links.close(drain_s=drain_s)
        await self._incoming.close()
        if self._settling is not None:
            self._settling.cancel()
        await self._carrier.close()

    # Inside

    def _heard_frames(self, message: Msg) -> None:
        """Take what came to the inbox."""
        if self._incoming is not None:
            self._incoming.heard(message)

    def _heard_reply(self, message: Msg) -> None:
        """Take what came for an outgoing link."""
        name = message.subject.rpartition(".")[2]
        if name == "0":
            if self._taken is not None and not self._taken.done():
                self._taken.set_result(bool(message.data))
            return
        stream = self._streams.get(name)
        if stream is not None:
            stream.heard(message)

    async def _dial(self, address: str) -> OutgoingStream:
        """Make a link to the node of an address.

        Raises:
            PeerRefusedError: nobody is there, whoever is does not want this node, or NATS is away.
        """
        carrier = self._carrier
        assert carrier is not None
        name = f"{self._rng.getrandbits(64) | 1 << 63:x}"
        stream = self._streams[name] = OutgoingStream(
            carrier,
            inbox=inbox_of(self._root, address),
            reply=f"{self._inbox}.{name}",
            forget=partial(self._forget, name),
        )
        try:
            await stream.open(self._hello)
        except BaseException:
            stream.abort()
            raise
        return stream

    def _forget(self, name: str) -> None:
        self._streams.pop(name, None)

    def _carrier_changed(self, is_up: bool) -> None:
        """Hear that NATS cannot be reached any more, or can again."""
        receiver, incoming = self._receiver, self._incoming
        if receiver is None or incoming is None:
            return
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        if not is_up:
            if self._is_told_up:
                self._is_told_up = False
                receiver.carrier_changed(is_up=False)
            incoming.forget_all()
            for stream in list(self._streams.values()):
                stream.end(LinkFailure(LinkFault.CARRIER))
            return
        self._settling = asyncio.get_running_loop().call_later(
            self._config.settle_s, self._settled, receiver
        )

    def _settled(self, receiver: Receiver) -> None:
        self._settling = None
        self._is_told_up = True
        receiver.carrier_changed(is_up=True)

    async def _claim(self, carrier: Carrier) -> None:
        """Take frames on the subject of this node's address, unless another process does.

        Raises:
            OSError: another process does, or the connection was lost meanwhile.
        """
        taken = self._taken = asyncio.get_running_loop().create_future()
        carrier.post(self._inbox, FINISH, reply=f"{self._inbox}.0")
        # A process whose host is gone has its subscription for a while, and does not answer.
        await asyncio.wait([taken], timeout=_TAKEN_S)
        self._taken = None
        if taken.done() and taken.result():
            raise OSError(errno.EADDRINUSE, f"{self._address} is the address of another process")
        await carrier.subscribe(self._inbox, self._heard_frames)


def _checked_address(address: str) -> str:
    host, port = split_address(address)
    if is_unspecified(host) or port == 0:
        raise ConfigError(f"{address} is no address that names one node")
    return join_address(host, port)


def _checked_servers(servers: Collection[str]) -> tuple[str, ...]:
    """Return the servers; what is wrong is said without what a URL may hold of secrets."""
    check_several("servers", servers)
    if not servers:
        raise ConfigError("NATS needs at least one server")
    for url in servers:
        check_text("a server", url)
        try:
            parts = urlsplit(url)
            is_right = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_right = False
        if not is_right:
            raise ConfigError("a server of NATS must be a URL such as nats://10.0.0.1:4222")
    return tuple(servers)
