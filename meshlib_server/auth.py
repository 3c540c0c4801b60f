"""Who may call: operators with one set of tokens, peers with another.

Rule: everything that reads, keeps or compares a token must live in this file. Operator tokens
open the HTTP endpoints of their scope and no gossip; peer tokens open the gossip and no endpoint.
Tokens come from files and the environment, never from a flag's value, and are never logged.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import field, frozen
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from meshlib.errors import ConfigError
from meshlib_server.config import AuthSettings
from meshlib_server.describing import Scope
from meshlib_server.logs import quiet_warning
from meshlib_server.problems import problem
from meshlib_server.resources import GRANTED
from meshlib_server.routes.description import DOCS_PATH
from meshlib_server.routes.events import UI_PATH
from meshlib_server.routes.probes import PROBE_PATHS

__all__ = ["AuthMiddleware", "Keyring", "Secrets", "TokenSet", "load_secrets", "read_tokens"]

_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""A bearer token as RFC 6750, section 2.1, writes it."""

_OPEN_PATHS = PROBE_PATHS | {DOCS_PATH, UI_PATH}
"""What is answered without a token: it tells of no cluster."""

_SCHEME = b"bearer "


class TokenSet:
    """Tokens that are valid at once, kept as digests and compared in constant time.

    Args:
        tokens: the tokens; several while they are being rotated. By their scopes, or of the scope
            `admin` all of them.
    """

    __slots__ = ("_digests",)

    def __init__(self, tokens: Iterable[str] | Mapping[str, Scope]) -> None:
        by_scope = tokens if isinstance(tokens, Mapping) else dict.fromkeys(tokens, Scope.ADMIN)
        self._digests = tuple(
            (hashlib.sha256(token.encode()).digest(), scope) for token, scope in by_scope.items()
        )

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accepts(self, authorization: bytes) -> bool:
        """Tell whether an `Authorization` header carries one of the tokens. O(tokens)."""
        return self.scope_of(authorization) is not None

    def scope_of(self, authorization: bytes) -> Scope | None:
        """Return the scope of the token that an `Authorization` header carries; None without one.

        Every token is compared, and digests of one length are, so the time it takes tells
        nothing about them. O(tokens).
        """
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            return None
        digest = hashlib.sha256(authorization[len(_SCHEME) :].strip(b" ")).digest()
        found = None
        for known, scope in self._digests:
            if hmac.compare_digest(digest, known):
                found = scope
        return found


@frozen(kw_only=True)
class Secrets:
    """The tokens of one process.

    Args:
        operators: accepted on the HTTP endpoints; none: no token is asked for.
        peers: accepted on the gossip.
        peer_token: presented to peers; None presents none.
    """

    operators: TokenSet = field(repr=False)
    peers: TokenSet = field(repr=False)
    peer_token: str | None = field(repr=False)


class Keyring:
    """The tokens in force, which may be replaced while the process runs.

    Args:
        secrets: the first ones.
    """

    def __init__(self, secrets: Secrets) -> None:
        self.secrets = secrets

    def accepts(self, token: bytes) -> bool:
        """Tell whether a peer's token is accepted, where it comes without HTTP. O(tokens).

        Without tokens of peers, only a peer that shows none is.
        """
        peers = self.secrets.peers
        return peers.accepts(_SCHEME + token) if peers else not token

    def replace(self, secrets: Secrets) -> None:
        """Put other tokens in force: for requests and connections from now on.

        Raises:
            ConfigError: there were tokens of a kind and would be none, or the other way round:
                what is open to whom is decided at a start. Nothing was changed.
        """
        for kind in ("operators", "peers"):
            if bool(getattr(secrets, kind)) != bool(getattr(self.secrets, kind)):
                raise ConfigError(f"whether there are tokens of {kind} is decided at the start")
        self.secrets = secrets


def load_secrets(
    auth: AuthSettings, *, environment: Mapping[str, str], flagged: Iterable[str] = ()
) -> Secrets:
    """Read the tokens: a file named by a flag, else the environment, else the configured file.

    Args:
        auth: where the files are.
        environment: `MESH_TOKENS` and `MESH_PEER_TOKEN` are read, comma separated; behind a token
            of the first may be a colon and its scope.
        flagged: the names of the fields of `auth` that came from flags.

    Raises:
        ConfigError: an unreadable file, a file or variable without a token, or a malformed one.
    """
    flagged = frozenset(flagged)
    operators = _choose(
        auth.tokens_file, environment, "MESH_TOKENS", is_flagged="tokens_file" in flagged
    )
    peers = _choose(
        auth.peer_token_file,
        environment,
        "MESH_PEER_TOKEN",
        is_flagged="peer_token_file" in flagged,
    )
    extra = [token for token, scope in operators.items() if scope is Scope.PEER]
    return Secrets(
        operators=TokenSet({key: each for key, each in operators.items() if each != Scope.PEER}),
        peers=TokenSet([*peers, *extra]),
        peer_token=next(iter(peers), None),
    )


def _choose(
    path: str | None, environment: Mapping[str, str], variable: str, *, is_flagged: bool
) -> dict[str, Scope]:
    text = environment.get(variable, "")
    if text and not is_flagged:
        parts = (part.strip().partition(":") for part in text.split(","))
        return _check_tokens([(token, word or None) for token, _, word in parts], variable)
    return {} if path is None else read_tokens(path)


def read_tokens(path: str) -> dict[str, Scope]:
    """Read a file of tokens: one on each line; empty lines and those with `#` first are skipped.

    Behind a token may be its scope, after a blank; without one it is `admin`.

    Raises:
        ConfigError: unreadable, without a token, or with a malformed one.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        detail = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(f"cannot read the tokens in {path}: {detail}") from None
    told = [line.strip() for line in lines]
    parts = [line.partition(" ") for line in told if line and line[0] != "#"]
    return _check_tokens([(token, word.strip() or None) for token, _, word in parts], path)


def _check_tokens(given: list[tuple[str, str | None]], source: str) -> dict[str, Scope]:
    if not given:
        raise ConfigError(f"{source} holds no token")
    tokens: dict[str, Scope] = {}
    for number, (token, word) in enumerate(given, 1):
        # Neither the token nor what stands behind it, which may be one, must reach a message.
        if not _TOKEN.fullmatch(token) or (word is not None and word not in list(Scope)):
            raise ConfigError(
                f"token {number} of {source} is malformed: use letters, digits and -._~+/ only, "
                f"and behind it nothing or one of {', '.join(Scope)}"
            )
        tokens[token] = Scope(word) if word is not None else Scope.ADMIN
    return tokens


class AuthMiddleware:
    """Lets authenticated requests through and answers 401 to the others; pure ASGI.

    Args:
        app: what is protected.
        secrets: the tokens. Without operator tokens HTTP is open (that is `--insecure`); the
            gossip is open only when there are no tokens at all. A keyring's may be replaced.
    """

    def __init__(self, app: ASGIApp, *, secrets: Secrets | Keyring) -> None:
        self._app = app
        self._keyring = secrets if isinstance(secrets, Keyring) else Keyring(secrets)
        first = self._keyring.secrets
        self._is_http_open = not first.operators
        self._is_gossip_open = not first.operators and not first.peers

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Check the one `Authorization` header against the set of tokens of its kind."""
        kind, secrets = scope["type"], self._keyring.secrets
        if kind == "http":
            is_allowed = self._is_http_open or scope.get("path") in _OPEN_PATHS
            if not is_allowed:
                granted = _granted(scope, secrets.operators)
                is_allowed, scope[GRANTED] = granted is not None, granted
        elif kind == "websocket":
            is_allowed = self._is_gossip_open or _granted(scope, secrets.peers) is not None
        else:
            is_allowed = True
        if is_allowed:
            await self._app(scope, receive, send)
            return
        client = scope.get("client") or ("unknown",)
        quiet_warning(f"unauthenticated {kind} request", f"from {client[0]}")
        response = problem(
            401,
            "a valid bearer token is required",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await response(scope, receive, send)


def _granted(scope: AsgiScope, tokens: TokenSet) -> Scope | None:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    return tokens.scope_of(given[0]) if len(given) == 1 else None
