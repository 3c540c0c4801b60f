"""Tokens: where they come from, which of them opens what, and that none leaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from meshlib.errors import ConfigError
from meshlib_server.app import build_app, http_routes
from meshlib_server.auth import AuthMiddleware, Secrets, TokenSet, load_secrets, read_tokens
from meshlib_server.config import AuthSettings
from meshlib_server.describing import Scope
from meshlib_server.resources import operations_of
from meshlib_server.service import Service

Write = Callable[[str], str]

OPERATORS = TokenSet(["operator-1", "operator-2"])
PEERS = TokenSet(["peer-1", "peer-2"])


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of tokens and return its path."""

    def write_file(text: str) -> str:
        path = tmp_path / f"tokens-{len(list(tmp_path.iterdir()))}"
        path.write_text(text)
        return str(path)

    return write_file


def ask(secrets: Secrets, kind: str, *authorization: bytes) -> list[dict[str, Any]]:
    """Send one request through the middleware; an empty list means that it came through."""
    sent: list[dict[str, Any]] = []

    async def app(*_: Any) -> None:
        return None

    async def send(message: Any) -> None:
        sent.append(dict(message))

    async def receive() -> Any:
        return {"type": "http.request"}

    scope = {
        "type": kind,
        "headers": [(b"authorization", value) for value in authorization],
        "extensions": {"websocket.http.response": {}},
    }
    anyio.run(AuthMiddleware(app, secrets=secrets), scope, receive, send)
    return sent


def secrets(operators: TokenSet = OPERATORS, peers: TokenSet = PEERS) -> Secrets:
    """Make the tokens of a process."""
    return Secrets(operators=operators, peers=peers, peer_token=None)


@pytest.mark.parametrize(
    "header",
    [b"Bearer operator-1", b"Bearer operator-2", b"bearer operator-1", b"BEARER  operator-1 "],
)
def test_each_of_several_tokens_opens_the_endpoints(header: bytes) -> None:
    """Old and new are both valid while tokens are rotated; the scheme's case is free."""
    assert [] == ask(secrets(), "http", header)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [b""],
        [b"Bearer"],
        [b"Bearer "],
        [b"operator-1"],
        [b"Basic operator-1"],
        [b"Bearer operator"],
        [b"Bearer operator-11"],
        [b"Bearer operator-1,operator-2"],
        [b"Bearer \xff\xfe"],
        [b"Bearer peer-1"],
        [b"Bearer operator-1", b"Bearer operator-1"],
    ],
)
def test_anything_else_is_a_401_with_a_challenge(headers: list[bytes]) -> None:
    """Missing, malformed, wrong, doubled, or a token of the other kind."""
    start, body = ask(secrets(), "http", *headers)

    assert 401 == start["status"]
    assert (b"www-authenticate", b"Bearer") in start["headers"]
    expected = {"error": "a valid bearer token is required", "code": "unauthenticated"}
    assert expected == json.loads(body["body"])


@pytest.mark.parametrize("header", [b"Bearer peer-1", b"Bearer peer-2"])
def test_peer_tokens_open_the_gossip(header: bytes) -> None:
    """Each of several, while they are rotated."""
    assert [] == ask(secrets(), "websocket", header)


@pytest.mark.parametrize("header", [b"Bearer operator-1", b"Bearer nobody", b""])
def test_other_tokens_do_not_open_the_gossip(header: bytes) -> None:
    """An operator's token is no peer's."""
    start, _ = ask(secrets(), "websocket", header)

    assert ("websocket.http.response.start", 401) == (start["type"], start["status"])


def test_without_a_peer_token_the_gossip_is_closed() -> None:
    """It is open only where everything is."""
    start, _ = ask(secrets(peers=TokenSet([])), "websocket", b"Bearer operator-1")

    assert 401 == start["status"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_without_any_token_everything_is_open(kind: str) -> None:
    """That is what `--insecure` allows, on loopback."""
    assert [] == ask(secrets(TokenSet([]), TokenSet([])), kind)


def test_a_file_holds_one_token_on_each_line(write: Write) -> None:
    """Empty lines and comments are passed over."""
    text = "# rotated\none\n\n  two  \r\n"
    assert {"one": Scope.ADMIN, "two": Scope.ADMIN} == read_tokens(write(text))


def test_behind_a_token_may_be_its_scope(write: Write) -> None:
    """Without one it opens everything, as tokens did before there were scopes."""
    text = "one read\ntwo   operate\nthree admin\nfour peer\nfive\n"

    assert {
        "one": Scope.READ,
        "two": Scope.OPERATE,
        "three": Scope.ADMIN,
        "four": Scope.PEER,
        "five": Scope.ADMIN,
    } == read_tokens(write(text))


def test_in_the_environment_a_colon_is_between_a_token_and_its_scope() -> None:
    """And a token of the scope `peer` opens the gossip, and no endpoint."""
    found = load_secrets(AuthSettings(), environment={"MESH_TOKENS": "one:read, two,three:peer"})

    assert [Scope.READ, Scope.ADMIN, None] == [
        found.operators.scope_of(f"Bearer {token}".encode()) for token in ("one", "two", "three")
    ]
    assert [False, False, True] == accepted(found.peers, "one", "two", "three")


@pytest.mark.parametrize(
    ("has", "opens"),
    [
        (Scope.READ, [Scope.READ]),
        (Scope.OPERATE, [Scope.READ, Scope.OPERATE]),
        (Scope.ADMIN, [Scope.READ, Scope.OPERATE, Scope.ADMIN]),
        (Scope.PEER, [Scope.PEER]),
    ],
)
def test_a_scope_opens_what_those_before_it_open(has: Scope, opens: list[Scope]) -> None:
    """And that of peers opens nothing else, nor does another open the gossip."""
    assert opens == [scope for scope in Scope if has.opens(scope)]


def test_what_a_scope_does_not_open_is_403_and_changes_nothing() -> None:
    """On every route, by what it is described as needing."""
    tokens = {scope.value: scope for scope in (Scope.READ, Scope.OPERATE, Scope.ADMIN)}
    keys = Secrets(operators=TokenSet(tokens), peers=PEERS, peer_token=None)
    ended: list[str] = []

    async def run() -> dict[tuple[str, str, str], int]:
        app = build_app(Service(None, shut_down=lambda: ended.append("x")), secrets=keys)
        transport = httpx2.ASGITransport(app=app)
        found = {}
        async with httpx2.AsyncClient(transport=transport, base_url="http://a") as client:
            for path, methods in operations_of(http_routes()).items():
                for method in methods:
                    for token in tokens:
                        headers = {"Authorization": f"Bearer {token}"}
                        answer = await client.request(method, path, headers=headers, json={})
                        found[method, path, token] = answer.status_code
        return found

    found = anyio.run(run)
    paths = operations_of(http_routes())
    for (method, path, token), status in found.items():
        wanted = paths[path][method].scope
        is_open = wanted is None or Scope(token).opens(wanted)
        assert is_open == (status != 403), (method, path, token, status)
    assert [] == ended
    assert 4 == sum(wanted == Scope.ADMIN for each in paths.values() for wanted in
                    [operation.scope for operation in each.values()])  # fmt: skip


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_a_file_without_a_token_is_an_error(write: Write, text: str) -> None:
    """It would otherwise switch authentication off."""
    with pytest.raises(ConfigError, match=r"holds no token"):
        read_tokens(write(text))


@pytest.mark.parametrize("text", ["two words", "sécret", "a,b", '"quoted"'])
def test_a_malformed_token_is_an_error_that_does_not_tell_it(write: Write, text: str) -> None:
    """The message names the line's number and not its content."""
    with pytest.raises(ConfigError, match=r"token 2 of .* is malformed") as caught:
        read_tokens(write(f"fine\n{text}\n"))

    assert text not in str(caught.value)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """One clear message."""
    with pytest.raises(ConfigError, match=r"cannot read the tokens in .*absent: No such file"):
        read_tokens(str(tmp_path / "absent"))


def test_the_environment_wins_over_the_configured_file(write: Write) -> None:
    """Both variables take several tokens, comma separated."""
    auth = AuthSettings(tokens_file=write("file"), peer_token_file=write("peer-file"))
    environment = {"MESH_TOKENS": "one, two", "MESH_PEER_TOKEN": "three,four"}

    found = load_secrets(auth, environment=environment)

    assert [True, True, False] == accepted(found.operators, "one", "two", "file")
    assert [True, True, False] == accepted(found.peers, "three", "four", "peer-file")
    assert "three" == found.peer_token


def test_a_file_named_by_a_flag_wins_over_the_environment(write: Write) -> None:
    """Flags win over everything."""
    auth = AuthSettings(tokens_file=write("file"))

    found = load_secrets(auth, environment={"MESH_TOKENS": "one"}, flagged=["tokens_file"])

    assert [True, False] == accepted(found.operators, "file", "one")


def test_nothing_configured_is_no_token() -> None:
    """Whether that may start is not decided here."""
    found = load_secrets(AuthSettings(), environment={})

    assert (False, False, None) == (bool(found.operators), bool(found.peers), found.peer_token)


def test_a_representation_tells_no_token() -> None:
    """It may end in a log."""
    found = load_secrets(
        AuthSettings(), environment={"MESH_TOKENS": "hush-1", "MESH_PEER_TOKEN": "hush-2"}
    )

    assert "hush" not in repr(found)


def accepted(tokens: TokenSet, *candidates: str) -> list[bool]:
    """Ask for each candidate."""
    return [tokens.accepts(f"Bearer {token}".encode()) for token in candidates]
