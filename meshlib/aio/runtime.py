"""A running node: start it, use it, stop it.

Rule: a runtime ends once. However it ends, its transport is closed, its event streams end, and
every wait on it is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from attrs import evolve

from meshlib.aio.discovery import Discovery, FixedSeeds
from meshlib.aio.driver import DriverCounters, NodeDriver
from meshlib.aio.settings import checked_wall_clock
from meshlib.aio.storage.keeper import SnapshotKeeper
from meshlib.aio.storage.snapshots import SnapshotFile
from meshlib.aio.transport import Transport, check_transport
from meshlib.aio.waiting import WaitingFront
from meshlib.arguments import check_callable, check_kind, check_number
from meshlib.errors import ConfigError, NameConflictError, StateError
from meshlib.gossip import Event, MemberJoined, NameConflict
from meshlib.node import MeshConfig, MeshNode, NodeState
from meshlib.replication import WriteReceipt

__all__ = ["MeshRuntime"]

_logger = logging.getLogger(__name__)

DISCOVERY_TIMEOUT_S = 5.0
"""How long a start waits for the first seeds."""

STOP_SAVE_S = 3.0
"""How long a stop waits for the last save; one that takes longer is given up."""

STOP_FLUSH_S = 0.5
"""How long a stop waits for busy links, before it says goodbye."""

STOP_DRAIN_S = 1.25
"""How long a stop waits for what is queued, goodbye included."""


def _is_cancelled() -> bool:
    """Tell whether the task that runs was cancelled itself, and not what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class MeshRuntime(WaitingFront):
    """Runs one node on asyncio, and is what a program calls: one task, one timer, bounded inbox.

        async with MeshRuntime(MeshConfig(name="router-1"), transport=..., seeds=[...]) as mesh:
            mesh.acquire("global", cost=1)
            mesh.route("llama-3", text)
            tags: Document[ORSet[str]] = mesh.document("tags", ORSet)
            tags.write(lambda state, w: state.add("x", dot=w.dot()))

    Everything happens in the thread of the event loop that it was started on; from another one
    use `call`. Whatever is written, by whichever door, is sent in the same turn of the loop.

    Args:
        config: who the node is; its address is the transport's.
        transport: not started yet; the runtime starts and closes it.
        seeds: addresses of peers, or a source of them. With none the node is its own cluster
            until someone finds it.
        rng: all chance of the node; by default seeded by the operating system.
        wall_clock: seconds since 1970, to stamp writes; a reading that is no finite number, or
            one after the year 9999, is an error of the call that needed it.
        snapshots: where the node's state is kept, and what it begins with; None: nowhere.
        seeds_refresh_s: how often a source that is not fixed is asked again, give or take a
            quarter.

    Raises:
        InvalidTypeError: an argument of another type; `seeds` is one text, where a list of them
            is meant, say.
        ConfigError: one of the seeds is no address, or an interval that is not over 0.
    """

    def __init__(
        self,
        config: MeshConfig,
        *,
        transport: Transport,
        seeds: Iterable[str] | Discovery = (),
        rng: random.Random | None = None,
        wall_clock: Callable[[], float] = time.time,
        snapshots: SnapshotFile | None = None,
        seeds_refresh_s: float = 30.0,
    ) -> None:
        check_kind("config", config, MeshConfig, wanted="a MeshConfig")
        check_transport(transport)
        if rng is not None:
            check_kind("rng", rng, random.Random, wanted="a random.Random")
        check_callable("wall_clock", wall_clock, wanted="a function that returns seconds")
        if snapshots is not None:
            check_kind("snapshots", snapshots, SnapshotFile, wanted="a SnapshotFile")
        check_number("seeds_refresh_s", seeds_refresh_s)
        if not 0 < seeds_refresh_s < math.inf:
            raise ConfigError(f"seeds_refresh_s must be over 0 and finite, got {seeds_refresh_s}")
        super().__init__(NodeDriver(transport, on_step=self._on_step))
        self.config = config
        self._transport = transport
        self._discovery = seeds if isinstance(seeds, Discovery) else FixedSeeds(seeds)
        self._rng = rng or random.Random()
        self._wall_clock = checked_wall_clock(wall_clock)
        self._is_transport_own = True
        """False for one that was started elsewhere: it is another runtime's to close."""
        self._snapshots = snapshots
        self._seeds_refresh_s = seeds_refresh_s
        self._keeper: SnapshotKeeper | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = asyncio.Event()
        self._is_stopping = False
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    # What is there

    @property
    def transport(self) -> Transport:
        """What carries the node's frames."""
        return self._transport

    @property
    def state(self) -> NodeState:
        """What the node is doing, in one word; `starting` before it was started."""
        if self._node is None:
            return NodeState.STOPPED if self._is_ending else NodeState.STARTING
        return self._node.state

    @property
    def counters(self) -> DriverCounters:
        """What the driver has done, and how late the event loop was."""
        return self._driver.counters

    # Start and end

    async def start(self) -> None:
        """Listen and join; returns once peers can connect. See `wait_ready` for the rest.

        Raises:
            OSError: the address cannot be listened on.
            LocalError: the configuration cannot hold, or the wall clock gives no such seconds. In
                each case nothing is left running.
            StateError: started before, as the transport may be by another runtime, or ended by
                `stop` or `abort` while it started.
        """
        if self._is_started:
            raise StateError("a runtime is started once")
        self._is_started = True
        self._gate.open()
        self._opening = asyncio.create_task(self._open())
        try:
            await self._opening
        except BaseException:
            is_first = self._begin_end()
            await self._close(drain_s=0)
            if is_first or _is_cancelled():
                raise
            raise StateError("the runtime was ended while it started") from None

    async def _open(self) -> None:
        """Do what a start does: a task of its own, so that an end need not wait for it."""
        try:
            await self._transport.start(self._driver)
        except StateError:
            self._is_transport_own = False
            raise
        config = evolve(self.config, address=self._transport.address)
        node = MeshNode(config, rng=self._rng, wall_clock=self._wall_clock, now=time.monotonic())
        if self._snapshots is not None:
            self._keeper = SnapshotKeeper(self._snapshots, node, wall_clock=self._wall_clock)
            await self._keeper.restore()
        self._seeds = await self._find_seeds()
        self.config = config
        self._driver.attach(node)
        node.set_guard(self._gate.check)
        self._driver.attempts.watch(self._seeds)
        # Names and files may tell of others later: who finds nobody there is not alone yet.
        may_find_more = not self._discovery.is_fixed
        node.join(self._seeds, now=time.monotonic(), may_find_more=may_find_more)
        self._node = node
        self._run(self._driver.run())
        self._run(self._watch_seeds())
        if not self._discovery.is_fixed:
            self._run(self._refresh_seeds())
        if self._keeper is not None:
            self._run(self._keeper.run())

    async def stop(self) -> None:
        """Leave: hand over, send what was written, tell the peers, save, close.

        What only this node has is handed over to ready peers first, which takes a round trip as a
        rule and `GossipConfig.leave_handover_s` at most; the rest takes under 5 s. Idempotent; a
        second call waits for the first. Does nothing for a runtime that failed. One that is still
        starting, or a stop that is cancelled, ends as by `abort`.

        Raises:
            ThreadError: in another event loop than the node's. Nothing was changed.
        """
        if self._is_there_to_end() and not self._is_ending and not self._is_stopping:
            self._is_stopping = True
            try:
                await self._hand_over()
                await self._flush()
            except BaseException:
                await self._end_at_once()
                raise
            if self._begin_end():
                await self._say_goodbye()
        await self._ended.wait()

    async def _say_goodbye(self) -> None:
        assert self._node is not None
        drain_s = 0.0
        try:
            await self._cancel_tasks()
            self._node.leave(now=time.monotonic())
            self._driver.step()
            if self._keeper is not None:
                await self._save_last(self._keeper)
            drain_s = STOP_DRAIN_S
        finally:
            await self._close(drain_s=drain_s)

    async def abort(self) -> None:
        """End at once, without a word to the peers: what a crash looks like to them.

        Idempotent.

        Raises:
            ThreadError: in another event loop than the node's. Nothing was changed.
        """
        if self._is_there_to_end():
            await self._end_at_once()
        await self._ended.wait()

    def _is_there_to_end(self) -> bool:
        """Tell whether there is a node to be ended; one that is still starting is given up."""
        if self._ended.is_set():
            return False
        self._gate.check_loop()
        if not self._is_started:
            self._is_started = True
            self._begin_end()
            self._ended.set()
        elif self._opening is not None and not self._opening.done() and self._begin_end():
            self._opening.cancel()  # `start` closes what was opened
        return not self._ended.is_set()

    async def _end_at_once(self) -> None:
        if self._begin_end():
            await self._end_failed()

    async def wait_stopped(self) -> None:
        """Return when the runtime has ended by `stop` or `abort`.

        Raises:
            ThreadError: in another event loop than the node's.
            StateError: it ended because its tasks were cancelled, as when the loop ends.
            NameConflictError: it ended because a live node has its name.
            Exception: the bug that ended it.
        """
        if not self._ended.is_set():
            self._gate.check_loop()
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    # Inside

    def _on_step(self, events: Sequence[Event]) -> None:
        if events:
            self._streams.publish(events)
            for event in events:
                if isinstance(event, NameConflict):
                    self._fail(NameConflictError(event.name, address=event.address))
                elif isinstance(event, MemberJoined):
                    self._look_at_seeds()
        if self._node is not None:
            self._confirmations.settle(self._node.limiter)
        self._conditions.look()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._on_task_done)
        self._tasks.append(task)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self._is_ending:
                _logger.error("the node ended without a goodbye: its tasks were cancelled")
                self._fail(StateError("the runtime has ended: its tasks were cancelled"))
            return
        error = task.exception()
        if isinstance(error, Exception):
            _logger.critical("the node failed: please report this", exc_info=error)
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End because of an error: whoever waits hears of it, and everything is closed."""
        if self._begin_end():
            self._failure = error
            self._conditions.fail(error)
            self._confirmations.fail(error)
            self._closing = asyncio.create_task(self._end_failed())

    def _begin_end(self) -> bool:
        """Claim the end, which is made once; True for the one who is to make it.

        From here on every call is refused.
        """
        is_first = not self._is_ending
        self._is_ending = True
        self._gate.close()  # at once: what was written after the goodbye would be lost in silence
        return is_first

    async def _end_failed(self) -> None:
        try:
            await self._cancel_tasks()
        finally:
            await self._close(drain_s=0)

    async def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _close(self, *, drain_s: float) -> None:
        try:
            if self._is_transport_own:
                await self._transport.close(drain_s=drain_s)
        except asyncio.CancelledError:
            await self._transport.close(drain_s=0)  # whoever is in a hurry leaves nothing open
            raise
        finally:
            if self._keeper is not None:
                self._keeper.close()
            if self._node is not None:
                self._node.stop()
            self._streams.close()
            self._conditions.fail(StateError("the runtime has ended"))
            self._confirmations.fail(StateError("the runtime has ended"))
            self._ended.set()

    async def _hand_over(self) -> None:
        """Wait until others have what this node has, as long as anybody can take it."""
        node, limit_s = self._entered(), self.config.gossip.leave_handover_s
        node.drain(now=time.monotonic())
        self.wake()
        try:
            await self.wait_until(lambda: node.has_handed_over, timeout_s=limit_s)
        except TimeoutError:
            if limit_s:
                _logger.warning(
                    "left after %g s without having handed over everything: no ready peer has "
                    "confirmed it", limit_s,
                )  # fmt: skip
        except (StateError, NameConflictError):
            return  # it has ended for another reason meanwhile

    async def _flush(self) -> None:
        """Wait for links that are busy, so that peers do not miss the last writes."""
        if not self._driver.busy_links:
            return
        node = self._node
        assert node is not None
        actor = node.actor
        receipt = WriteReceipt(actor, node.replica.version_vector.get(actor, 0))
        with contextlib.suppress(TimeoutError, StateError, NameConflictError):
            await self.wait_converged(receipt, timeout_s=STOP_FLUSH_S)

    async def _save_last(self, keeper: SnapshotKeeper) -> None:
        try:
            async with asyncio.timeout(STOP_SAVE_S):
                await keeper.save()
        except TimeoutError:
            _logger.warning("the last save took too long; what is kept is the one before it")

    async def _find_seeds(self) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(DISCOVERY_TIMEOUT_S):
                found = await self._discovery.addresses()
        except TimeoutError:
            self._discovery_problem = f"no seeds were found within {DISCOVERY_TIMEOUT_S:g} s"
            _logger.warning("%s", self._discovery_problem)
        except Exception as error:
            # A source of someone else's making; the seeds of before still hold.
            self._discovery_problem = f"the source of seeds failed: {error!r}"
            _logger.exception("a source of seeds failed")
        else:
            is_empty = not found and not self._discovery.is_fixed
            self._discovery_problem = "the source of seeds named none" if is_empty else ""
            return found
        return self._seeds

    async def _refresh_seeds(self) -> None:
        """Ask the source of seeds again and again, and dial those that are new."""
        while True:
            await asyncio.sleep(self._seeds_refresh_s * self._rng.uniform(0.75, 1.25))
            found = await self._find_seeds()
            if found and set(found) != set(self._seeds):
                self._seeds = found
                self._driver.attempts.watch(found)
                self._entered().join(found, now=time.monotonic(), may_find_more=True)
                self._driver.wake()
