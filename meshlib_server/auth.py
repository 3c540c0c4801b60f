"""Who may call: operators with one set of tokens, peers with another.

Rule: everything that reads, keeps or compares a token must live in this file. Operator tokens
open the HTTP endpoints and no gossip; peer tokens open the gossip and no endpoint. Tokens come
from files and the environment, never from a flag's value, and are never logged.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from attrs import field, frozen
from starlette.types import ASGIApp, Receive, Scope, Send

from meshlib.errors import ConfigError
from meshlib_server.config import AuthSettings
from meshlib_server.logs import quiet_warning
from meshlib_server.problems import problem
from meshlib_server.routes.description import DOCS_PATH
from meshlib_server.routes.probes import PROBE_PATHS

__all__ = ["AuthMiddleware", "Keyring", "Secrets", "TokenSet", "load_secrets", "read_tokens"]

_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""A bearer token as RFC 6750, section 2.1, writes it."""

_OPEN_PATHS = PROBE_PATHS | {DOCS_PATH}
"""What is answered without a token: it tells of no cluster."""

_SCHEME = b"bearer "


class TokenSet:
    """Tokens that are valid at once, kept as digests and compared in constant time.

    Args:
        tokens: the tokens; several while they are being rotated.
    """

    __slots__ = ("_digests",)

    def __init__(self, tokens: Iterable[str]) -> None:
        self._digests = tuple(hashlib.sha256(token.encode()).digest() for token in tokens)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accepts(self, authorization: bytes) -> bool:
        """Tell whether an `Authorization` header carries one of the tokens.

        Every token is compared, and digests of one length are, so the time it takes tells
        nothing about them. O(tokens).
        """
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            return False
        digest = hashlib.sha256(authorization[len(_SCHEME) :].strip(b" ")).digest()
        is_accepted = False
        for known in self._digests:
            is_accepted |= hmac.compare_digest(digest, known)
        return is_accepted


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
        environment: `MESH_TOKENS` and `MESH_PEER_TOKEN` are read, comma separated.
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
    return Secrets(
        operators=TokenSet(operators),
        peers=TokenSet(peers),
        peer_token=peers[0] if peers else None,
    )


def _choose(
    path: str | None, environment: Mapping[str, str], variable: str, *, is_flagged: bool
) -> list[str]:
    text = environment.get(variable, "")
    if text and not is_flagged:
        return _check_tokens([part.strip() for part in text.split(",")], variable)
    return [] if path is None else read_tokens(path)


def read_tokens(path: str) -> list[str]:
    """Read a file of tokens: one on each line; empty lines and those with `#` first are skipped.

    Raises:
        ConfigError: unreadable, without a token, or with a malformed one.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        detail = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(f"cannot read the tokens in {path}: {detail}") from None
    tokens = [line.strip() for line in lines]
    return _check_tokens([token for token in tokens if token and token[0] != "#"], path)


def _check_tokens(tokens: list[str], source: str) -> list[str]:
    if not tokens:
        raise ConfigError(f"{source} holds no token")
    for number, token in enumerate(tokens, 1):
        if not _TOKEN.fullmatch(token):  # the token itself must not reach a message
            raise ConfigError(
                f"token {number} of {source} is malformed: use letters, digits and -._~+/ only"
            )
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the one `Authorization` header against the set of tokens of its kind."""
        kind, secrets = scope["type"], self._keyring.secrets
        if kind == "http":
            is_allowed = (
                self._is_http_open
                or scope.get("path") in _OPEN_PATHS
                or _is_accepted(scope, secrets.operators)
            )
        elif kind == "websocket":
            is_allowed = self._is_gossip_open or _is_accepted(scope, secrets.peers)
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


def _is_accepted(scope: Scope, tokens: TokenSet) -> bool:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    return len(given) == 1 and tokens.accepts(given[0])
