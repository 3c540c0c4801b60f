"""Both sides in one: how a program without an HTTP server joins a cluster of `meshlib-server`."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Collection

from meshlib.aio.framing import TokenCheck, encode_hello
from meshlib.aio.links import LinkConfig
from meshlib.aio.listener import ListenerConfig
from meshlib.aio.transport import QuietLog, Receiver, is_unspecified, join_address, split_address
from meshlib.aio.websocket.accepting import WebSocketListener
from meshlib.aio.websocket.dialling import DialledTls, WebSocketDialler
from meshlib.arguments import check_kind, check_text
from meshlib.errors import ConfigError, RejectReason, StateError, check_several

__all__ = ["WebSocketTransport"]

_logger = logging.getLogger(__name__)


class WebSocketTransport(WebSocketDialler):
    """Carries frames over WebSockets, as `meshlib-server` does: a `Transport`.

    Args:
        listen: `host:port` to listen on; port 0 takes a free one. `0.0.0.0` and `[::]` listen
            on every interface, and need `advertise`.
        advertise: `host:port` that peers dial; by default the listening one. Port 0 stands
            for the port that is listened on.
        token: the peer token of the cluster, which this node shows and asks for; None: none. It
            travels as it is: use TLS where the network is not trusted.
        accepted_tokens: further tokens that peers may show, while the token is being changed.
        server_tls: for accepted connections; its `verify_mode` asks for client certificates.
        client_tls: for dialled connections; give both contexts or neither.
        peer_name: the name that the certificates of peers must have; None: those of their hosts.
        links: how outgoing links are kept.
        listener: what is granted to those who connect.

    Raises:
        ConfigError: an address that cannot be used or advertised, TLS for one direction only, an
            empty or oversized token, or a silence that peers' idle links would exceed.
        InvalidTypeError: an argument of another type, or one text in place of `accepted_tokens`.
    """

    def __init__(
        self,
        listen: str,
        *,
        advertise: str | None = None,
        token: str | None = None,
        accepted_tokens: Collection[str] = (),
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
        peer_name: str | None = None,
        links: LinkConfig | None = None,
        listener: ListenerConfig | None = None,
    ) -> None:
        for name, given in (("advertise", advertise), ("token", token), ("peer_name", peer_name)):
            if given is not None:
                check_text(name, given)
        for name, context in (("server_tls", server_tls), ("client_tls", client_tls)):
            if context is not None:
                check_kind(name, context, ssl.SSLContext, wanted="an ssl.SSLContext")
        self._listen = split_address(listen)
        self._advertise = split_address(advertise or listen)
        if is_unspecified(self._advertise[0]):
            raise ConfigError(
                f"{join_address(*self._advertise)} is no address that peers could reach: "
                "advertise another"
            )
        if (server_tls is None) != (client_tls is None):
            raise ConfigError("TLS needs a context for each direction")
        check_several("accepted_tokens", accepted_tokens)
        for accepted in accepted_tokens:
            check_text("an accepted token", accepted)
        encode_hello(token)  # what no other transport could show is no token here either
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ConfigError("a token in a header must be printable ASCII")
        self._tokens = TokenCheck([*([token] if token else []), *accepted_tokens])
        self._server_tls = server_tls
        self._listener_config = listener or ListenerConfig()
        super().__init__(
            token=token,
            tls=None if client_tls is None else DialledTls(client_tls, peer_name),
            links=links,
            log=QuietLog(_logger),
        )
        if self._listener_config.silence_max_s <= self._links.config.idle_close_s:
            raise ConfigError("silence_max_s must be over idle_close_s")
        self._listener: WebSocketListener | None = None

    @property
    def address(self) -> str:
        """Where peers reach this transport.

        Raises:
            StateError: the port is chosen at `start`, which was not called.
        """
        if self._advertise[1] == 0:
            raise StateError("a transport on port 0 has no address before it is started")
        return join_address(*self._advertise)

    async def start(self, receiver: Receiver) -> None:
        """Listen, and deliver to `receiver` from now on.

        Raises:
            OSError: the address cannot be listened on. Nothing was started.
            StateError: started before.
        """
        if self._listener is not None:
            raise StateError("the transport was started before")
        listener = WebSocketListener(
            receiver,
            tokens=self._tokens,
            counters=self.counters,
            config=self._listener_config,
            log=self._log,
            tls=self._server_tls,
        )
        port = await listener.open(*self._listen)
        self._listener = listener
        self._advertise = (self._advertise[0], self._advertise[1] or port)
        self._begin(receiver)

    def close_sender(self, sender: str, *, reason: RejectReason | None = None) -> None:
        """Close the incoming connection that a frame came on; see `Transport.close_sender`."""
        if self._listener is not None:
            self._listener.close_sender(sender, reason=reason)

    async def close(self, *, drain_s: float) -> None:
        """Stop listening, send what is queued for up to `drain_s` seconds, and close."""
        if self._listener is None:
            return
        self._listener.stop_accepting()
        await self._links.close(drain_s=drain_s)
        await self._listener.close(is_gentle=drain_s > 0)
