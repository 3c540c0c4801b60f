"""What is passed wrongly is told at once, by an error of the library that says what is wanted."""

from __future__ import annotations

import inspect
import random
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

import meshlib
from meshlib import (
    CacheAwareConfig,
    ConfigError,
    ConsistentHashRing,
    DocumentTypeError,
    GossipConfig,
    InvalidTypeError,
    InvalidValueError,
    LocalError,
    MemoryNetwork,
    MeshConfig,
    MeshNode,
    MeshRuntime,
    RateLimitConfig,
    ReplicationConfig,
    StartupConfig,
    TcpTransport,
    WriteReceipt,
)
from meshlib.aio import (
    DnsSeeds,
    EventStream,
    FileSeeds,
    FixedSeeds,
    LinkConfig,
    ListenerConfig,
    SeveralSources,
    SnapshotFile,
    SrvSeeds,
)
from meshlib.arguments import with_article
from meshlib.crdt import GCounter, LWWMap, ORSet
from meshlib.identity import ActorId
from meshlib.ratelimit import SlotTicket
from meshlib.ring import rendezvous
from meshlib.routing import RouteDecision, RouteReason, TreeInsert
from meshlib.state import RESERVED_NAMES, RESERVED_PREFIXES, Subscription

pytestmark = pytest.mark.anyio

WRONG: tuple[object, ...] = (None, 5, 1.5, True, "x", b"x", {}, [1], object(), float("nan"))
"""Something of every kind that a caller may pass by mistake."""

NUMBER = (int, float)


NETWORK = MemoryNetwork()
RING = ConsistentHashRing(["a", "b"])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def mesh(anyio_backend: str) -> AsyncIterator[MeshRuntime]:
    """Yield one running node, alone."""
    async with runtime() as running:
        await running.wait_ready()
        running.sync.sync_worker_state("w", model_id="m", url="u", health=True, load=0.0)
        yield running


def runtime(**changes: Any) -> MeshRuntime:
    """Make a runtime, with some arguments in place of the right ones."""
    arguments: dict[str, Any] = {"transport": MemoryNetwork().transport("node:1"), **changes}
    return MeshRuntime(arguments.pop("config", MeshConfig(name="node")), **arguments)


def fits(value: object, kinds: tuple[type | None, ...]) -> bool:
    """Tell whether a value is of one of some types; a bool is an integer for nobody here."""
    if value is None:
        return None in kinds
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, tuple(kind for kind in kinds if kind is not None))


# The misuses that were reported


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda: runtime(snapshots="x.bin"), "snapshots must be a SnapshotFile, not str"),
        (lambda: runtime(transport="tcp"), "transport must be a Transport, .* not str"),
        (lambda: runtime(config="x"), "config must be a MeshConfig, not str"),
        (lambda: runtime(seeds=None), "seeds must be several, such as a list, not None"),
        (lambda: runtime(seeds=5), "seeds must be several, such as a list, not int"),
        (
            lambda: call(MeshConfig, {"name": "a", "gossip": 3}),
            "gossip must be a GossipConfig, not int",
        ),
        (
            lambda: call(MeshConfig, {"name": "a", "rate_limit": {}}),
            "rate_limit must be a RateLimitConfig, not dict",
        ),
        (
            lambda: call(ConsistentHashRing, {"nodes": None}),
            "the nodes of a ring must be several, .* not None",
        ),
        (lambda: call(RING.owner, {"key": 1}), "key must be a string, not int"),
    ],
)
def test_a_reported_misuse_is_told_by_its_argument(
    misuse: Callable[[], object], message: str
) -> None:
    """With what was given and what is wanted, where it is made."""
    with pytest.raises(InvalidTypeError, match=message):
        misuse()


async def test_one_waits_for_a_receipt(mesh: MeshRuntime) -> None:
    """And a timeout is a number of seconds."""
    receipt = mesh.sync.set_config("key", b"value")
    with pytest.raises(InvalidTypeError, match=r"receipt must be a WriteReceipt, .* not str"):
        await mesh.wait_converged("x")  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="timeout_s must be a number of seconds, or None"):
        await mesh.wait_converged(receipt, timeout_s="1")  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="timeout_s must be a number of seconds, or None"):
        await mesh.wait_ready("1")  # type: ignore[arg-type]


# Their siblings: whatever is public, with whatever is wrong

CONFIGS = {
    MeshConfig: {"name": "a"},
    GossipConfig: {},
    ReplicationConfig: {},
    RateLimitConfig: {},
    CacheAwareConfig: {},
    LinkConfig: {},
    ListenerConfig: {},
    StartupConfig: {},
}


SETTINGS: list[tuple[Any, str]] = [
    (cls, field.name) for cls in CONFIGS for field in attrs.fields(cls)
]


@pytest.mark.parametrize(("cls", "name"), SETTINGS)
def test_a_setting_of_another_type_is_refused_by_its_name(cls: Any, name: str) -> None:
    """No setting waits for the moment it is used."""
    default = getattr(cls(**CONFIGS[cls]), name)
    kinds: tuple[type | None, ...] = NUMBER if isinstance(default, float) else (type(default),)
    if name == "address":
        kinds = (str, None)
    if name == "gossip":
        kinds = (str,)  # the name of a profile
    for value in WRONG:
        if not fits(value, kinds):
            with pytest.raises((InvalidTypeError, ConfigError), match=name):
                cls(**{**CONFIGS[cls], name: value})


CALLS: dict[str, tuple[Callable[..., object], dict[str, Any], dict[str, tuple[Any, ...]]]] = {
    "MeshRuntime": (
        MeshRuntime,
        {"config": MeshConfig(name="a"), "transport": NETWORK.transport("a:1")},
        {
            "config": (), "transport": (), "seeds": (dict,), "rng": (None,), "wall_clock": (),
            "snapshots": (None,), "seeds_refresh_s": NUMBER,
        },
    ),
    "MeshNode": (
        MeshNode,
        {
            "config": MeshConfig(name="a", address="a:1"), "rng": random.Random(1),
            "wall_clock": lambda: 1.7e9, "now": 0.0,
        },
        {"config": (), "rng": (), "wall_clock": (), "now": NUMBER},
    ),
    "TcpTransport": (
        TcpTransport,
        {"listen": "127.0.0.1:0"},
        {
            "listen": (), "advertise": (None,), "token": (str, None), "accepted_tokens": (dict,),
            "server_tls": (None,), "client_tls": (None,), "links": (None,), "listener": (None,),
            "rng": (None,),
        },
    ),
    "MemoryNetwork": (MemoryNetwork, {}, {"loss_probability": NUMBER, "rng": (None,)}),
    "MemoryNetwork.transport": (NETWORK.transport, {}, {"address": ()}),
    "MemoryNetwork.lose": (NETWORK.lose, {}, {"probability": NUMBER}),
    "FixedSeeds": (FixedSeeds, {}, {"addresses": (dict,)}),
    "DnsSeeds": (DnsSeeds, {"names": ["a:1"]}, {"names": (dict,), "resolver": ()}),
    "SrvSeeds": (
        SrvSeeds, {"names": ["_a._tcp.b"]},
        {"names": (dict,), "services": (), "resolver": ()},
    ),
    "FileSeeds": (FileSeeds, {}, {"path": (str,)}),
    "SeveralSources": (SeveralSources, {}, {"sources": (dict,)}),
    "SnapshotFile": (SnapshotFile, {"path": "x"}, {"path": (str,), "interval_s": NUMBER}),
    "EventStream": (EventStream, {}, {"queue_max": (int,), "check_loop": ()}),
    "Subscription": (Subscription, {}, {"stores": (), "queue_max": (int,)}),
    "ConsistentHashRing": (ConsistentHashRing, {}, {"nodes": (dict,), "virtual_nodes": (int,)}),
    "ConsistentHashRing.add": (RING.add, {}, {"node": (str,)}),
    "ConsistentHashRing.remove": (RING.remove, {}, {"node": ()}),
    "ConsistentHashRing.update": (RING.update, {}, {"nodes": (dict,)}),
    "ConsistentHashRing.owner": (RING.owner, {}, {"key": (str,)}),
    "ConsistentHashRing.owners": (RING.owners, {"key": "k"}, {"key": (str,), "count": (int,)}),
    "rendezvous": (
        rendezvous, {"key": "k", "candidates": ["a"]}, {"key": (str,), "candidates": (dict,)},
    ),
}  # fmt: skip
"""What is called, with what is right for it, and which of `WRONG` are right for which argument."""


def call(function: Callable[..., object], arguments: dict[str, Any]) -> object:
    """Call a function by the names of its arguments, whichever of them have to be in place."""
    names = inspect.signature(function).parameters
    in_place = [
        arguments[name]
        for name, parameter in names.items()
        if name in arguments and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    rest = {n: v for n, v in arguments.items() if names[n].kind is names[n].KEYWORD_ONLY}
    return function(*in_place, **rest)


@pytest.mark.parametrize("name", CALLS)
def test_an_argument_of_another_type_is_refused_at_once(name: str) -> None:
    """By an error of the library, whichever argument it is; none is left out here."""
    function, right, kinds = CALLS[name]

    assert set(inspect.signature(function).parameters) == set(kinds)
    for argument, wanted in kinds.items():
        for value in WRONG:
            if not fits(value, wanted):
                with pytest.raises(LocalError):
                    call(function, {**right, argument: value})


def test_a_secret_of_another_type_is_in_no_message() -> None:
    """Nor is one that cannot be encoded."""
    for token in (b"secret", ["secret"], "secret\ud800"):
        with pytest.raises(LocalError) as caught:
            TcpTransport("127.0.0.1:0", token=token)  # type: ignore[arg-type]
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None
        with pytest.raises(LocalError) as caught:
            TcpTransport("127.0.0.1:0", accepted_tokens=[token])  # type: ignore[list-item]
        assert "secret" not in str(caught.value)


def test_the_objects_of_other_packages_are_taken() -> None:
    """A TLS context, a generator of chance, a path."""
    context = ssl.create_default_context()
    TcpTransport(
        "127.0.0.1:0", server_tls=context, client_tls=context, rng=random.Random(1),
        links=LinkConfig(), listener=ListenerConfig(),
    )  # fmt: skip
    FileSeeds(Path("seeds"))


NOBODY = RouteDecision(worker_id=None, url=None, matched=0, reason=RouteReason.NO_WORKER)

RIGHT: dict[str, Any] = {
    "key": "global", "cost": 1, "model_id": "m", "text": "t", "worker_id": "w", "name": "tags",
    "kind": ORSet, "queue_max": 5, "peer_count": 0, "condition": lambda: True, "url": "u",
    "health": True, "load": 0.0, "ttl_s": 5.0, "policy_type": "cache_aware", "config": "",
    "operation": TreeInsert("a", "b"), "operations": [], "value": b"v", "limit_per_second": 4,
    "stores": ["workers"], "timeout_s": 0.001, "config_key": "k", "function": len,
    "receipt": WriteReceipt(ActorId(b"a" * 16), 0), "tokens": 5, "exclude": [], "candidates": [],
    "salt": "s", "session": "s", "session_ttl_s": 5.0, "record": True, "now": 0.0, "held": {},
    "decision": NOBODY, "target": NOBODY, "prefill_tokens": 5, "request_id": "r",
    "decoded_tokens": 5,
    "pattern": "user:*", "limits": "60/minute", "costs": {"global": 1}, "estimate": 1,
    "requests": [("global", 1)], "count": 5,
    "lease_s": 5.0, "actual": 1, "reservation": "r", "limit": 4,
    "ticket": SlotTicket("k", 1, 0.0, asked_at=0.0),
}  # fmt: skip
"""What is right for each argument of a verb, by its name."""

TAKEN: dict[str, tuple[Any, ...]] = {
    "cost": (int,), "estimate": (int,), "lease_s": NUMBER, "actual": (int,),
    "costs": (dict,), "requests": (), "count": (int,), "queue_max": (int,),
    "peer_count": (int, None), "load": NUMBER,
    "ttl_s": (*NUMBER, None), "value": (bytes,), "limit_per_second": (int,), "health": (bool,),
    "timeout_s": (*NUMBER, None), "operations": (dict,), "stores": (), "operation": (),
    "condition": (), "kind": (), "receipt": (), "function": (), "tokens": (*NUMBER, None),
    "exclude": (dict,), "candidates": (dict, None), "record": (bool,), "now": (*NUMBER, None),
    "decision": (), "target": (str,), "prefill_tokens": (*NUMBER, None),
    "decoded_tokens": (int, None),
    "session_ttl_s": NUMBER, "held": (dict, None), "limit": (int,), "ticket": (),
}  # fmt: skip
"""Which of `WRONG` are right for it; where none are named, text is."""

NOT_THE_FRONTS = {"publish", "note_changes", "watch", "call"}
"""What whoever drives a node calls; `call` is asked in `test_front.py`."""


async def answer(function: Callable[..., object], arguments: dict[str, Any]) -> None:
    """Call a function, and wait for what it promises."""
    result = call(function, arguments)
    if inspect.isawaitable(result):
        await result


async def test_a_verb_of_the_front_refuses_an_argument_of_another_type(mesh: MeshRuntime) -> None:
    """Each verb of the runtime, of `sync` and of `limits`, each argument."""
    tried, taken = 0, []
    for holder in (mesh, mesh.sync, mesh.limits):
        for name, function in inspect.getmembers(holder, callable):
            if name.startswith("_") or name in NOT_THE_FRONTS:
                continue
            arguments = inspect.signature(function).parameters
            assert set(arguments) <= set(RIGHT), name
            right = {argument: RIGHT[argument] for argument in arguments}
            for argument in arguments:
                for value in WRONG:
                    if not fits(value, TAKEN.get(argument, (str,))):
                        try:
                            await answer(function, {**right, argument: value})
                        except LocalError:
                            tried += 1
                        else:
                            taken.append((name, argument, value))

    assert [] == taken
    assert tried > 300


# Names of documents


@pytest.mark.parametrize(
    "name", [*sorted(RESERVED_NAMES), *(f"{prefix}x" for prefix in RESERVED_PREFIXES), "tree:m"]
)
@pytest.mark.parametrize("kind", [ORSet, LWWMap])
async def test_a_name_of_the_librarys_own_is_refused(
    mesh: MeshRuntime, name: str, kind: Any
) -> None:
    """Whatever the type; nothing is made, and the name's true document can be."""
    before = mesh.node.replica.documents()
    with pytest.raises(InvalidValueError, match="library's own"):
        mesh.document(name, kind)
    with pytest.raises(InvalidValueError, match="library's own"):
        mesh.node.document(name, kind)

    assert before == mesh.node.replica.documents()
    mesh.sync.sync_tree_operation("m", TreeInsert("a", "w"))


def test_every_document_of_the_library_has_a_name_that_is_refused() -> None:
    """Whichever room makes it: the constants that name one end in `_DOCUMENT` or `TREE_PREFIX`."""
    root = Path(meshlib.__file__).parent
    found = {}
    for path in root.rglob("*.py"):
        for line in path.read_text().splitlines():
            name, colon, rest = line.partition(": Final = ")
            if colon and (name.endswith("_DOCUMENT") or name == "TREE_PREFIX"):
                found[name] = rest.strip('"')

    assert {"WORKERS_DOCUMENT", "LEASE_DOCUMENT", "WRITTEN_OFF_DOCUMENT", "TREE_PREFIX"} <= set(
        found
    )
    for document in found.values():
        assert document in RESERVED_NAMES or document.startswith(RESERVED_PREFIXES)


@pytest.mark.parametrize("name", ["trees", "tree", "tags", "workers2", "team:tags", "tre:x"])
async def test_any_other_name_is_free(mesh: MeshRuntime, name: str) -> None:
    """One that only looks like the library's is nobody's."""
    assert 0 == len(mesh.document(name, ORSet).state)


# Grammar


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ORSet", "an ORSet"), ("int", "an int"), ("str", "a str"), ("LWWMap", "an LWWMap"),
        ("GSet", "a GSet"), ("EnableWinsFlag", "an EnableWinsFlag"),
        ("MVRegister", "an MVRegister"), ("PNCounter", "a PNCounter"), ("UUID", "a UUID"),
    ],
)  # fmt: skip
def test_a_class_has_the_article_that_it_is_spoken_with(name: str, sentence: str) -> None:
    """As a sentence has it."""
    assert sentence == with_article(name)


async def test_errors_are_sentences(mesh: MeshRuntime) -> None:
    """None says `a or_set`, `a int` or that a text must be text."""
    mesh.document("tags", ORSet)
    with pytest.raises(DocumentTypeError) as caught:
        mesh.document("tags", GCounter)
    assert "document 'tags' is of type or_set, not of type g_counter" == str(caught.value)
    with pytest.raises(InvalidTypeError, match=r"^an ORSet cannot join an int$"):
        ORSet[str]().absorb(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match=r"^text must be a string, not int$"):
        mesh.route("m", 5)  # type: ignore[arg-type]
