"""The front cannot be misused: each misuse gets an error that says what is wrong, and no more."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

import meshlib
from meshlib import (
    ConfigError,
    ConsistentHashRing,
    Decision,
    Document,
    DocumentTypeError,
    ForeignClockError,
    InvalidTypeError,
    InvalidValueError,
    LocalError,
    MemoryNetwork,
    MeshConfig,
    MeshRuntime,
    NotReadyError,
    StateError,
    TcpTransport,
    ThreadError,
)
from meshlib.aio import DnsSeeds, FixedSeeds, LinkFault
from meshlib.aio.gate import Gate
from meshlib.crdt import GCounter, ORSet
from meshlib.ring import rendezvous

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
USER_CODE = ROOT / "tests" / "house" / "user_code.py"

BEHIND = "_guarded_thing"
"""Where a guarded object has the one behind it."""

THREADS = 4
CALLS = 4_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def mesh(anyio_backend: str) -> AsyncIterator[MeshRuntime]:
    """Yield one running node, alone."""
    transport = MemoryNetwork().transport("node:1")
    runtime = MeshRuntime(MeshConfig(name="node"), transport=transport)
    await runtime.start()
    yield runtime
    await runtime.stop()


def add(element: str) -> Callable[[ORSet[str], meshlib.WriteContext], ORSet[str]]:
    """Return a mutator that adds an element."""
    return lambda state, context: state.add(element, dot=context.dot())


# Time


@pytest.mark.parametrize(
    ("now", "error"),
    [
        (time.time, ForeignClockError),
        (time.monotonic_ns, ForeignClockError),
        (lambda: -1e9, ForeignClockError),
        (lambda: math.nan, InvalidValueError),
        (lambda: math.inf, InvalidValueError),
        (lambda: "now", InvalidTypeError),
        (lambda: True, InvalidTypeError),
    ],
    ids=["wall clock", "nanoseconds", "long ago", "nan", "infinite", "text", "bool"],
)
async def test_a_reading_of_another_clock_is_refused_and_shuts_no_key(
    mesh: MeshRuntime, now: Callable[[], float], error: type[LocalError]
) -> None:
    """The first that comes as well: it is named, nothing is counted, and the key goes on."""
    mesh.sync.set_global_rate_limit(1_000_000)
    with pytest.raises(error, match="now"):
        mesh.node.limiter.acquire("global", now=now())
    with pytest.raises(error, match="now"):
        mesh.node.limiter.stats("global", now=now())

    assert mesh.acquire("global").allowed
    assert mesh.rate_limit_stats("global").current_count <= 1


async def test_a_driver_that_gives_another_clock_is_refused(mesh: MeshRuntime) -> None:
    """And the node's own deadlines stay where they were."""
    node = mesh.node
    deadline = node.next_deadline()
    verbs: list[Callable[[], object]] = [
        lambda: node.handle_timer(time.time()),
        lambda: node.receive(b"", sender="x", now=time.time()),
        lambda: node.join([], now=time.time()),
        lambda: node.connection_lost("x:1", now=time.time()),
    ]
    for verb in verbs:
        with pytest.raises(ForeignClockError, match=r"this looks like time\.time"):
            verb()

    assert deadline == node.next_deadline()


# Threads


async def test_a_call_from_another_thread_is_refused_with_the_way_that_works(
    mesh: MeshRuntime,
) -> None:
    """By every door, those that were opened before included."""
    tags: Document[ORSet[str]] = mesh.document("tags", ORSet)
    sync, limiter, replica = mesh.sync, mesh.node.limiter, mesh.node.replica
    doors: dict[str, Callable[[], object]] = {
        "acquire": lambda: mesh.acquire("global"),
        "route": lambda: mesh.route("m", "text"),
        "document": lambda: mesh.document("tags", ORSet),
        "sync": lambda: mesh.sync,
        "members": mesh.members,
        "health": mesh.health,
        "wake": mesh.wake,
        "events": mesh.events,
        "a document's state": lambda: tags.state,
        "a document's write": lambda: tags.write(add("x")),
        "the manager": lambda: sync.set_config("key", b"value"),
        "the manager, reading": lambda: sync.get_all_worker_states(),
        "the manager, routing": lambda: sync.route("m", "text"),
        "the limiter": lambda: limiter.acquire("global", now=time.monotonic()),
        "the limiter's counts": lambda: limiter.stats("global", now=time.monotonic()),
        "the replica": lambda: replica.open("tags", type_tag="or_set"),
    }

    def try_doors() -> dict[str, str]:
        answers = {}
        for name, door in doors.items():
            try:
                door()
            except ThreadError as error:
                answers[name] = str(error)
        return answers

    answers = await asyncio.to_thread(try_doors)

    assert set(doors) == set(answers)
    assert all("runtime.call" in answer for answer in answers.values())
    assert 0 == len(tags.state)


async def test_many_threads_use_a_node_by_call(mesh: MeshRuntime) -> None:
    """Sixteen thousand calls from a pool: none fails, none is lost, and the tables are sound."""
    mesh.sync.set_global_rate_limit(10**9)
    tags: Document[ORSet[str]] = mesh.document("tags", ORSet)

    def work(thread: int) -> int:
        admitted = 0
        for number in range(CALLS):
            admitted += mesh.call(mesh.acquire, "global").allowed
            if number % 10 == 0:
                mesh.call(tags.write, add(f"{thread}-{number}"))
        return admitted

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS) as pool:
        admitted = await asyncio.gather(
            *(loop.run_in_executor(pool, work, thread) for thread in range(THREADS))
        )

    assert THREADS * CALLS == sum(admitted)
    assert THREADS * CALLS // 10 == len(tags.state)
    mesh.node._check()


async def test_what_a_called_function_raises_is_raised_where_it_was_called(
    mesh: MeshRuntime,
) -> None:
    """And in the loop's own thread it is called as any function."""
    with pytest.raises(InvalidTypeError, match="cost"):
        await asyncio.to_thread(mesh.call, mesh.acquire, "global", cost="1")  # type: ignore[arg-type]
    assert mesh.call(threading.get_ident) == threading.get_ident()
    assert await asyncio.to_thread(mesh.call, threading.get_ident) == threading.get_ident()


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
async def test_what_is_no_exception_is_raised_where_it_was_called_too(
    mesh: MeshRuntime, error: type[BaseException]
) -> None:
    """Or the caller would wait for ever."""
    told: list[type[BaseException]] = []

    def fail() -> None:
        raise error

    def ask() -> None:
        try:
            mesh.call(fail)
        except (asyncio.CancelledError, GeneratorExit) as raised:
            told.append(type(raised))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    await asyncio.to_thread(asking.join, 10)

    assert [error] == told


async def test_a_coroutines_function_is_no_function_to_call_in_the_loops_own_thread(
    mesh: MeshRuntime,
) -> None:
    """It would wait for itself; nothing of it runs."""
    with pytest.raises(InvalidTypeError, match="an ordinary function"):
        _ = mesh.call(mesh.wait_ready)


async def test_a_coroutine_is_waited_for_from_another_thread(mesh: MeshRuntime) -> None:
    """The confirmed call too: each of many threads gets its own answers, by the one limit."""
    mesh.limits.set("ann", 5)

    def ask() -> list[Decision]:
        return [mesh.call(mesh.acquire_confirmed, "ann", cost=1) for _ in range(4)]

    answers = await asyncio.gather(*(asyncio.to_thread(ask) for _ in range(THREADS)))
    decisions = [decision for answer in answers for decision in answer]
    windows = Counter(decision.window for decision in decisions if decision.allowed)

    assert all(decision.confirmed for decision in decisions)
    assert windows
    assert max(windows.values()) <= 5
    assert not mesh._gate._waiting
    assert not mesh._gate._tasks


async def test_what_a_coroutine_raises_is_raised_where_it_was_called(mesh: MeshRuntime) -> None:
    """Whether it is an error, or its end; nobody waits for ever."""

    async def be_cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(LocalError, match="nobody"):
        await asyncio.to_thread(mesh.call, mesh.acquire_confirmed, "nobody")

    told: list[type[BaseException]] = []

    def ask() -> None:
        try:
            mesh.call(be_cancelled)
        except asyncio.CancelledError as raised:
            told.append(type(raised))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    await asyncio.to_thread(asking.join, 10)

    assert [asyncio.CancelledError] == told


async def test_who_waits_for_a_coroutine_is_answered_when_the_runtime_ends(
    mesh: MeshRuntime,
) -> None:
    """With an error, whatever the coroutine still waits for."""
    has_begun = asyncio.Event()
    ends = asyncio.Event()

    async def wait() -> None:
        has_begun.set()
        await ends.wait()

    asking = asyncio.get_running_loop().run_in_executor(None, mesh.call, wait)
    await has_begun.wait()
    await mesh.abort()
    with pytest.raises(StateError, match="has ended"):
        await asking
    ends.set()


@pytest.mark.parametrize(
    ("queue_max", "error"),
    [(0, InvalidValueError), (-1, InvalidValueError), ("9", InvalidTypeError)],
)
async def test_a_stream_of_events_has_room_for_one(
    mesh: MeshRuntime, queue_max: int, error: type[LocalError]
) -> None:
    """The first event would have ended the node."""
    with pytest.raises(error, match="queue_max"):
        mesh.events(queue_max=queue_max)


async def test_a_document_is_of_a_class_and_not_of_a_state(mesh: MeshRuntime) -> None:
    """The state would be thrown away; nothing is made."""
    with pytest.raises(InvalidTypeError, match="must be a class, not ORSet"):
        mesh.document("tags", ORSet())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert "tags" not in mesh.node.replica.documents()


async def test_who_waits_for_a_call_is_answered_when_the_runtime_ends(mesh: MeshRuntime) -> None:
    """With an error: the function did not run."""
    ran: list[int] = []
    is_asked = threading.Event()

    def ask() -> None:
        is_asked.set()
        mesh.call(ran.append, 1)

    asking = asyncio.get_running_loop().run_in_executor(None, ask)
    # The loop stands still here, so what is asked waits, until the end comes first.
    is_asked.wait(timeout=10)
    while not mesh._gate._waiting:
        time.sleep(0.001)  # noqa: ASYNC251 - the loop is to stand still
    await mesh.abort()
    with pytest.raises(StateError, match="has ended"):
        await asking

    assert [] == ran


async def test_who_waits_is_noted_and_forgotten_under_the_lock() -> None:
    """By whichever way a call ends: the end of the runtime goes through them at the same time."""
    gate = Gate()
    gate.open()
    changes: list[bool] = []

    class Watched(set[Any]):
        def add(self, element: object) -> None:
            changes.append(gate._lock.locked())
            super().add(element)

        def discard(self, element: object) -> None:
            changes.append(gate._lock.locked())
            super().discard(element)

    def call_a_loop(*, is_closed: bool) -> None:
        loop = asyncio.new_event_loop()
        gate._waiting, gate._loop = Watched(), loop
        if is_closed:
            loop.close()
        try:
            with pytest.raises(StateError, match="loop of the runtime has ended"):
                gate.call(threading.get_ident)
        finally:
            loop.close()

    gate._owner += 1  # somebody else's: what is called here comes from another thread
    call_a_loop(is_closed=True)
    call_a_loop(is_closed=False)

    assert [True] * 4 == changes


# What is kept of a node


def what_acts(node: meshlib.MeshNode) -> dict[str, object]:
    """Return a node and all that is reached through it and acts, by the path to it."""
    found: dict[str, object] = {"node": node}
    waiting = ["node"]
    while waiting:
        path = waiting.pop()
        for name in public_names(found[path]):
            value = getattr(found[path], name)
            if hasattr(type(value), BEHIND):
                found[f"{path}.{name}"] = value
                waiting.append(f"{path}.{name}")
    return found


def public_names(thing: object) -> list[str]:
    """Return what is public on an object: of its class, and of its own."""
    return [name for name in dir(getattr(thing, BEHIND)) if not name.startswith("_")]


def uses_of(path: str, thing: object) -> dict[str, Callable[[], object]]:
    """Return a use of everything that is public on a guarded object, by the path to it."""
    guarded = vars(type(thing))
    uses: dict[str, Callable[[], object]] = {}
    for name in public_names(thing):
        if isinstance(guarded.get(name), FunctionType):
            uses[f"{path}.{name}"] = getattr(thing, name)
        elif not callable(getattr(type(thing), name, None)):  # or the class's own, as `of` is
            uses[f"{path}.{name}"] = partial(getattr, thing, name)
    return uses


def outcomes(uses: dict[str, Callable[[], object]]) -> dict[str, str]:
    """Use each, and return what came of it: the error's name, or `done`."""
    found = {}
    for path, use in uses.items():
        try:
            use()
        except Exception as error:  # noqa: BLE001 - which one it is, is what is asked
            found[path] = type(error).__name__
        else:
            found[path] = "done"
    return found


async def test_whatever_is_public_on_a_kept_node_is_refused_to_another_thread(
    mesh: MeshRuntime,
) -> None:
    """On all that is reached through it as well, and on methods that were kept."""
    things = what_acts(mesh.node)
    uses = {name: use for path in things for name, use in uses_of(path, things[path]).items()}
    found = await asyncio.to_thread(outcomes, uses)

    assert "done" == found.pop("node.state")  # as that of the runtime
    assert {"ThreadError"} == set(found.values()), found
    assert {
        "node.members", "node.seen_by", "node.forget", "node.note_problem", "node.wakeup",
        "node.sync.subscribe", "node.sync.members.all", "node.replica.flush", "node.limiter.tick",
    } <= set(found)  # fmt: skip
    assert {"node", "node.replica", "node.limiter", "node.sync", "node.leases"} <= set(things)


async def test_whatever_is_public_on_a_kept_node_is_refused_after_the_end() -> None:
    """As the verbs of the runtime are."""
    mesh = MeshRuntime(MeshConfig(name="node"), transport=MemoryNetwork().transport("node:1"))
    async with mesh:
        things = what_acts(mesh.node)
        uses = {name: use for path in things for name, use in uses_of(path, things[path]).items()}
    found = outcomes(uses)

    assert "done" == found.pop("node.state")
    assert {"StateError"} == set(found.values()), found
    assert len(found) > 100


async def test_a_kept_node_is_the_node_that_runs(mesh: MeshRuntime) -> None:
    """An instance of its class, the same each time, that does what the one behind it does."""
    node = mesh.node
    node.note_problem("disk", "the disk is full")

    assert isinstance(node, meshlib.MeshNode)
    assert isinstance(mesh.sync, meshlib.MeshSyncManager)
    assert node is mesh.node
    assert node.sync is mesh.sync
    assert "the disk is full" in mesh.health().problems
    assert mesh.members() == node.members() == tuple(mesh.sync.members.all())
    node.wakeup, before = None, node.wakeup
    assert mesh._node is not None
    assert mesh._node.wakeup is None
    node.wakeup = before
    with pytest.raises(meshlib.UnknownKeyError):
        node.forget("nobody")


# Before the start and after the end


async def test_every_call_is_refused_before_the_start_and_after_the_end() -> None:
    """A node that is not there admits nothing and takes nothing."""
    mesh = MeshRuntime(MeshConfig(name="node"), transport=MemoryNetwork().transport("node:1"))
    calls: dict[str, Callable[[], object]] = {
        "acquire": lambda: mesh.acquire("global"),
        "stats": lambda: mesh.rate_limit_stats("global"),
        "route": lambda: mesh.route("m", "text"),
        "document": lambda: mesh.document("tags", ORSet),
        "call": lambda: mesh.call(mesh.acquire, "global"),
        "members": mesh.members,
        "health": mesh.health,
        "diagnose": mesh.diagnose,
        "sync": lambda: mesh.sync,
        "limits": lambda: mesh.limits,
        "node": lambda: mesh.node,
        "wake": mesh.wake,
    }
    for call in calls.values():
        with pytest.raises(StateError, match="not started"):
            call()
    async with mesh:
        tags: Document[ORSet[str]] = mesh.document("tags", ORSet)
        sync, limiter = mesh.sync, mesh.node.limiter
        for call in calls.values():
            call()
    calls["events"] = mesh.events
    calls["a document"] = lambda: tags.write(add("x"))
    calls["a document's state"] = lambda: tags.state
    calls["the manager"] = lambda: sync.set_config("key", b"value")
    calls["the limiter"] = lambda: limiter.acquire("global", now=time.monotonic())
    for call in calls.values():
        with pytest.raises(StateError, match="has ended"):
            call()
    with pytest.raises(StateError):
        await mesh.wait_ready()


# Writes


@pytest.mark.parametrize("door", ["document", "replica", "manager", "limits"])
async def test_a_write_wakes_the_driver_by_itself(mesh: MeshRuntime, door: str) -> None:
    """Whichever way it was made: the loop's next turn sends it, and no timer is waited for."""
    tags: Document[ORSet[str]] = mesh.document("tags", ORSet)
    await asyncio.sleep(0)
    await mesh.wait_until(lambda: not mesh._driver._wake.is_set())
    if door == "document":
        tags.write(add("x"))
    elif door == "replica":
        mesh.node.replica.write("tags", add("x"))
    elif door == "manager":
        mesh.sync.set_config("key", b"value")
    else:
        mesh.limits.set("key", 5)

    assert mesh._driver._wake.is_set()


async def test_a_document_of_another_type_is_refused(mesh: MeshRuntime) -> None:
    """And so is a class that is no registered lattice; what is there stays."""
    tags: Document[ORSet[str]] = mesh.document("tags", ORSet)
    tags.write(add("x"))
    with pytest.raises(DocumentTypeError):
        mesh.document("tags", GCounter)
    with pytest.raises(InvalidTypeError, match="not a registered lattice"):
        mesh.document("others", dict)  # type: ignore[type-var]
    with pytest.raises(InvalidTypeError, match="delta"):
        tags.write(lambda state, context: {"x"})  # type: ignore[arg-type, return-value]

    assert {"x"} == tags.state.value


# Waiting in vain


async def test_a_wait_in_vain_tells_what_each_seed_answered() -> None:
    """Nobody there, a name that is not known, another cluster, another token."""
    other = MeshRuntime(
        MeshConfig(name="other", cluster_name="other"),
        transport=TcpTransport("127.0.0.1:0", token="right"),
    )
    locked = MeshRuntime(
        MeshConfig(name="locked"), transport=TcpTransport("127.0.0.1:0", token="wrong")
    )
    async with other, locked:
        faults = {
            "127.0.0.1:1": LinkFault.REFUSED,
            "no.such.host.invalid:80": LinkFault.UNRESOLVABLE,
            other.transport.address: LinkFault.WRONG_CLUSTER,
            locked.transport.address: LinkFault.WRONG_TOKEN,
        }
        mesh = MeshRuntime(
            MeshConfig(name="node"),
            transport=TcpTransport("127.0.0.1:0", token="right"),
            seeds=faults,
        )
        async with mesh:

            def found() -> dict[str, LinkFault | None]:
                seeds = mesh.diagnose().seeds
                return {s.address: s.failure.fault if s.failure else None for s in seeds}

            await mesh.wait_until(lambda: found() == faults, timeout_s=30)
            with pytest.raises(NotReadyError) as caught:
                await mesh.wait_ready(timeout_s=0.01)

            assert isinstance(caught.value, TimeoutError)
            assert caught.value.story == mesh.diagnose().story
            for address, fault in faults.items():
                assert address in str(caught.value)
                assert str(fault) in str(caught.value)


async def test_a_wait_in_vain_tells_of_a_seed_that_is_silent() -> None:
    """Frames went out, and nothing came back: a cut, or something that is no node."""
    network = MemoryNetwork()
    network.partition({"node:1"})
    mesh = MeshRuntime(
        MeshConfig(name="node"), transport=network.transport("node:1"), seeds=["far:1"]
    )
    async with mesh:
        await mesh.wait_until(lambda: mesh.diagnose().seeds[0].sent_count > 0, timeout_s=10)
        with pytest.raises(NotReadyError, match="far:1: no answer to"):
            await mesh.wait_ready(timeout_s=0.01)


# Names, and what is no list of them


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: ConsistentHashRing("node1"),
        lambda: ConsistentHashRing().update("node1"),
        lambda: rendezvous("key", "node1"),
        lambda: FixedSeeds("a:1"),
        lambda: DnsSeeds("a:1"),
        lambda: MeshRuntime(
            MeshConfig(name="a"), transport=MemoryNetwork().transport("a:1"), seeds="b:1"
        ),
        lambda: TcpTransport("127.0.0.1:0", token="a", accepted_tokens="b"),
        lambda: MemoryNetwork().partition("a:1", "b:1"),
    ],
    ids=["ring", "update", "rendezvous", "seeds", "dns", "runtime", "tokens", "partition"],
)
def test_one_text_in_place_of_several_is_refused(misuse: Callable[[], object]) -> None:
    """A text is an iterable of texts, and would be taken for its characters."""
    with pytest.raises(InvalidTypeError, match="must be several, such as a list, and not one str"):
        misuse()


def test_a_seed_is_text() -> None:
    """Another type is refused as such."""
    with pytest.raises(InvalidTypeError, match="a seed must be a string, not int"):
        FixedSeeds([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def test_a_gossip_profile_has_a_name() -> None:
    """The settings may be given by it; another one is refused."""
    assert meshlib.GossipConfig.wan() == MeshConfig(name="a", gossip="wan").gossip
    with pytest.raises(ConfigError, match="lan, wan, local"):
        MeshConfig(name="a", gossip="moon")


def test_a_node_without_a_transport_needs_an_address() -> None:
    """A runtime takes its transport's; a bare node has none to take."""
    import random

    with pytest.raises(ConfigError, match="needs an address"):
        meshlib.MeshNode(
            MeshConfig(name="a"), rng=random.Random(1), wall_clock=lambda: 1.7e9, now=0.0
        )


# What type checkers see


def pyright(path: Path) -> subprocess.CompletedProcess[str]:
    """Have pyright read one file with this environment."""
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(path)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )


def test_a_users_file_has_no_error_and_no_any_in_strict_mode() -> None:
    """Documents, decisions, limits and events, with `assert_type` at each."""
    result = pyright(USER_CODE)

    assert (0, True) == (result.returncode, "0 errors" in result.stdout), result.stdout


@pytest.mark.slow
def test_a_wrong_write_is_seen_by_the_type_checker(tmp_path: Path) -> None:
    """An element of another type, and a result that is no delta."""
    wrong = USER_CODE.read_text().replace(
        'tags.write(lambda state, w: state.add("x", dot=w.dot()))',
        "tags.write(lambda state, w: state.add(3, dot=w.dot()))\n"
        "    tags.write(lambda state, w: {3})",
    )
    path = tmp_path / "wrong.py"
    path.write_text(wrong)
    result = pyright(path)

    assert "2 errors" in result.stdout, result.stdout


def mypy(path: Path) -> subprocess.CompletedProcess[str]:
    """Have mypy read one file strictly, as a user's project would."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, str(path)]
    return subprocess.run(
        command, cwd=path.parent, capture_output=True, text=True, timeout=110, check=False
    )


@pytest.mark.slow
def test_the_other_type_checker_finds_no_error_in_a_users_file(tmp_path: Path) -> None:
    """A record of which some fields are given included: that is how it is written."""
    path = tmp_path / "user_code.py"
    path.write_text(USER_CODE.read_text())
    result = mypy(path)

    assert (0, True) == (result.returncode, "Success" in result.stdout), result.stdout


@pytest.mark.slow
def test_a_record_that_is_filled_wrongly_is_seen_by_both_type_checkers(tmp_path: Path) -> None:
    """A field of another type, and one that is not there."""
    wrong = USER_CODE.read_text().replace(
        "Profile(visits=state.visits.increment(by=w.actor)))",
        "Profile(visits=3))\n    profile.write(lambda state, w: Profile(visit=state.visits))",
        1,
    )
    path = tmp_path / "wrong.py"
    path.write_text(wrong)
    found = mypy(path)

    assert "Found 2 errors" in found.stdout, found.stdout
    assert "2 errors" in pyright(path).stdout


def test_a_users_file_runs() -> None:
    """What the type checker has read is true."""
    result = subprocess.run(
        [sys.executable, "-W", "error", str(USER_CODE)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)


# The server without its extra


@pytest.mark.parametrize("arguments", [["--help"], ["serve"], []], ids=["help", "serve", "none"])
def test_the_server_without_its_extra_says_which_to_install(arguments: list[str]) -> None:
    """In one line, whatever was asked for: no traceback."""
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); "
        f"sys.argv = ['meshlib-server', *{arguments!r}]; "
        "runpy.run_module('meshlib_server', run_name='__main__')"
    )
    # Without `site` nothing that was installed is found, the extra's packages among it.
    result = subprocess.run(
        [sys.executable, "-S", "-I", "-c", code],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert 3 == result.returncode
    assert "" == result.stdout
    assert 1 == len(result.stderr.splitlines())
    assert "pip install 'meshlib-crdt[server]'" in result.stderr
