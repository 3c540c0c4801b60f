"""A whole cluster in one thread, under a virtual clock: one seed replays one history exactly.

The nodes are `MeshNode`s, the ones that run in production, driven as a runtime drives them.
Time passes by taking the next action from a heap ordered by (time, order of scheduling), so
nothing depends on threads, on sleeping, or on the order of sets. Chance is forked: one
generator for each process by name and start, one for the network, one for the workload, one
for each incident; taking a fault out of a scenario leaves the others' draws alone.

    outcome = Simulation(draw_scenario(17)).run()
    assert outcome.failure is None, outcome

Source: FoundationDB's simulation; TigerBeetle's VOPR (chaos, then a calm in which all must
converge); al8n/memberlist's checkers.
"""

from __future__ import annotations

import heapq
import random
import struct
import traceback
from collections.abc import Callable
from typing import Any, Final

from meshlib.gossip import Event, LinkEnd, Packet
from meshlib.hashing import hash64
from meshlib.limits import EVENTS_QUEUED_MAX
from meshlib.node import MeshNode
from meshlib.ratelimit import SlotTicket
from meshlib.testing.checkers.beginnings import Beginnings
from meshlib.testing.checkers.calm import Calm
from meshlib.testing.checkers.decisions import Decisions
from meshlib.testing.checkers.documents import DocumentWatch
from meshlib.testing.checkers.ledger import Ledger
from meshlib.testing.checkers.limits import LimitLedger
from meshlib.testing.checkers.majorities import Majorities
from meshlib.testing.checkers.observer import Observer
from meshlib.testing.checkers.sometimes import Sometimes
from meshlib.testing.checkers.watch import Broken, ContentByVector, Watch
from meshlib.testing.simulation.incidents import Incidents
from meshlib.testing.simulation.outcome import Failure, Outcome
from meshlib.testing.simulation.prompt_use import PromptUse
from meshlib.testing.simulation.requests import replay_arguments
from meshlib.testing.simulation.slot_use import SlotUse
from meshlib.testing.simulation.spread import Spread
from meshlib.testing.simulation.workload import Workload
from meshlib.testing.world.hosts import Host
from meshlib.testing.world.network import SimulatedNetwork
from meshlib.testing.world.nodes import CLUSTER_NAME, make_node, restore
from meshlib.testing.world.scenario import BOOT_S, Scenario, machine_names

__all__ = ["Simulation"]

CHECK_PERIOD: Final = 64
"""Every how many events of a node its structures check themselves, one document at a time."""

THOROUGH_SEEDS: Final = 32
"""One seed in so many has them check themselves after every event: five times the work."""

PROGRESS_STEPS: Final = 60

HAND_OVER_S: Final = 0.05
"""How often a leaving process looks whether it may go."""

_CALL = struct.Struct(">dB")


class Simulation:
    """One run: machines, network, faults, workload, checkers.

    Args:
        scenario: what happens.
        check_period: every how many events of a node `_check()` of everything in it is asked;
            64 without it, and 1 for one seed in 32. After every other event one part is asked.
        trace: is given one line for each thing that happens; None to be fast.
        spread: follows the writes, when given.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        check_period: int | None = None,
        trace: Callable[[str], None] | None = None,
        spread: Spread | None = None,
    ) -> None:
        self.scenario = scenario
        self.now = 0.0
        self.event_count = 0
        self.is_calm = False
        self.hosts: dict[str, Host] = {}
        self.ledger = Ledger()
        self.limits = LimitLedger()
        self.sometimes = Sometimes()
        self.contents = ContentByVector()
        self.beginnings = Beginnings(
            cluster_name=CLUSTER_NAME, bootstrap_after_s=scenario.tuning.bootstrap_after_s
        )
        self.decisions = Decisions(self.sometimes)
        self.majorities = Majorities(self.sometimes)
        self.observer = Observer()
        self.failure: Failure | None = None
        self._trace = trace
        self._spread = spread
        is_thorough = scenario.seed % THOROUGH_SEEDS == THOROUGH_SEEDS - 1
        self._check_period = check_period or (1 if is_thorough else CHECK_PERIOD)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._digest = scenario.seed & 0xFFFF_FFFF_FFFF_FFFF
        self._by_address: dict[str, Host] = {}
        seed = scenario.seed
        self.network = SimulatedNetwork(
            scenario.network,
            rng=random.Random(f"{seed}/network"),
            schedule=self.schedule,
            deliver=self._deliver,
            refused=self._refused,
            busy=self._link_busy,
        )
        self._origins = random.Random(f"{seed}/origins")
        self._rates = random.Random(f"{seed}/rates")
        self._places = random.Random(f"{seed}/places")
        self.workload = Workload(
            scenario.tuning,
            rng=random.Random(f"{seed}/workload"),
            sometimes=self.sometimes,
            ledger=self.ledger,
            limits=self.limits,
            limits_rng=random.Random(f"{seed}/limits"),
        )
        self._writers = random.Random(f"{seed}/writers")
        self.slot_use = SlotUse(
            self,
            rng=random.Random(f"{seed}/slots"),
            per_s=scenario.tuning.slot_requests_per_s,
            meetings=self.limits.meetings,
        )
        self.prompt_use = PromptUse(
            self,
            rng=random.Random(f"{seed}/prompts"),
            per_s=scenario.tuning.prompts_per_s,
            writes=self.ledger.others,
        )
        self.incidents = Incidents(self)
        self.calm = Calm(self)

    # Time

    def schedule(self, at_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Run `action(now, *arguments)` at a simulated time; not before the present one."""
        self._order += 1
        heapq.heappush(self._heap, (max(at_s, self.now), self._order, action, arguments))

    def advance(self, until_s: float) -> None:
        """Let everything happen up to a simulated time.

        Raises:
            Broken: a checker found something; the run is over.
        """
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until_s:
            at_s, _, action, arguments = pop(heap)
            self.now = at_s
            self.event_count += 1
            action(at_s, *arguments)
        self.now = until_s

    def trace(self, label: str, what: str) -> None:
        """Hand one line to whoever wants to read what happens."""
        if self._trace is not None:
            self._trace(f"{self.now:9.4f}  {label:<6} {what}")

    def _mix(self, kind: int, data: bytes) -> None:
        """Take one thing that happened into the digest of the run."""
        self._digest = hash64(_CALL.pack(self.now, kind) + data, self._digest)

    @property
    def trace_digest(self) -> str:
        """16 hexadecimal digits that are equal for equal histories."""
        return f"{self._digest:016x}"

    # Machines

    def seeds(self) -> tuple[str, ...]:
        """Return the addresses that a starting node is told of."""
        count = min(self.scenario.tuning.seed_count, self.scenario.node_count)
        return tuple(f"10.0.0.{index}:7946" for index in range(count))

    def add_host(self, label: str, *, name: str | None = None) -> Host:
        """Add a machine, or return the one of that label."""
        host = self.hosts.get(label)
        if host is None:
            index = len(self.hosts)
            address = f"10.0.{index >> 8}.{index & 255}:7946"
            spread = self.scenario.tuning.clock_rate_spread
            host = Host(
                label,
                name or label,
                address,
                origin_s=self._origins.uniform(0.0, 1e5),
                rate=1.0 + self._rates.uniform(-spread, spread),
                index=index,
            )
            self.hosts[label] = host
            self._by_address[address] = host
            self.network.add_address(address)
        return host

    def running(self) -> list[Host]:
        """Return the machines with a process, paused ones included, in order."""
        return [host for host in self.hosts.values() if host.node is not None]

    def start(self, now: float, host: Host) -> None:
        """Start a process on a machine, unless one runs there."""
        if host.node is not None:
            return
        host.start_count += 1
        host.started_at = now
        host.simulated_now = now
        host.node = make_node(host, self.scenario, now=now)
        self.sometimes.count("started_from_snapshot", int(restore(host, now)))
        host.watch = Watch(
            host,
            look_at_others=DocumentWatch(host, self.ledger.others).look,
            ledger=self.ledger,
            contents=self.contents,
            sometimes=self.sometimes,
            is_partitioned=lambda: self.network.is_cut,
            check_period=self._check_period,
            vector_moved=None if self._spread is None else self._follow,
        )
        self.trace(host.label, f"starts as {host.node.node_id}")
        self.beginnings.started(host, self.seeds(), host.monotonic(now))
        self._call(host, 1, b"", lambda node, local: node.join(self.seeds(), now=local))

    def crash(self, host: Host) -> None:
        """End a process at once; peers notice by themselves, or by their links."""
        if host.node is None:
            return
        self.trace(host.label, "crashes")
        self._mix(2, host.label.encode())
        self.observer.process_ended(host, self)
        self.majorities.ended(host)
        self.limits.meetings.ended(host, self.now)
        if self._spread is not None:
            self._spread.ended(host.label)
        host.stop()
        senders = self.network.close_links(host.address)
        if self.network.faults.tells_refusals:
            for sender in senders:
                self.schedule(self.now + 0.001, self._link_lost, sender, host.address)

    def leave(self, now: float, host: Host) -> None:
        """Let a node hand over what it has and say goodbye; its process ends shortly after."""
        if host.node is None or host.is_leaving:
            return
        host.is_leaving = True
        until_s = now + self.scenario.tuning.leave_handover_s
        self._call(host, 3, b"", lambda node, local: node.drain(now=local))
        self._hand_over(now, host, host.start_count, until_s)

    def _hand_over(self, now: float, host: Host, start_count: int, until_s: float) -> None:
        if host.node is None or host.start_count != start_count:
            return
        if host.is_running and (host.node.has_handed_over or now >= until_s):
            self.majorities.departs(host)
            self._call(host, 3, b"", lambda node, local: node.leave(now=local))
            self.schedule(now + 0.5, self._end_after_leaving, host, start_count)
        else:
            self.schedule(now + HAND_OVER_S, self._hand_over, host, start_count, until_s)

    def _end_after_leaving(self, _now: float, host: Host, start_count: int) -> None:
        if host.start_count == start_count:
            self.crash(host)

    def pause(self, now: float, host: Host, duration_s: float) -> None:
        """Stop a process as SIGSTOP does: packets wait, timers do not fire."""
        if host.is_running:
            host.paused_until = now + duration_s
            self.trace(host.label, f"is stopped for {duration_s:.2f} s")
            self.schedule(host.paused_until, self._resume, host, host.start_count)

    def resume(self, now: float, host: Host) -> None:
        """Let a stopped process go on: what waits is handled, timers are late."""
        self._resume(now, host, host.start_count)

    def _resume(self, now: float, host: Host, start_count: int) -> None:
        if host.node is None or host.start_count != start_count or host.paused_until is None:
            return
        self.trace(host.label, "goes on")
        host.paused_until = None
        waiting = list(host.inbox)
        host.inbox.clear()
        host.inbox_bytes = 0
        if self._places.random() < 0.5:
            host.armed_at = None
            self._timer(now, host, start_count, now)
        reports, host.link_reports = host.link_reports, {}
        for address, is_busy in reports.items():
            self._link_busy(now, host.address, address, is_busy)
        for sender, data in waiting:
            if host.is_running:
                self._receive(host, sender, data)
        if host.is_running:
            host.armed_at = None
            self._arm(host)

    # What reaches a node

    def call(self, host: Host, kind: int, action: Callable[[float], object]) -> None:
        """Let a program do something to its node: `action(local time)`."""
        self._call(host, kind, b"", lambda _node, local: action(local))

    def _call(
        self, host: Host, kind: int, data: bytes, action: Callable[[MeshNode, float], object]
    ) -> None:
        """Do something to a node, then drain it, check it, and arm its timer."""
        now = self.now
        host.simulated_now = now
        node: MeshNode = host.node
        self._mix(kind, data)
        local = host.monotonic(now)
        action(node, local)
        packets: list[Packet] = node.packets_to_send()
        events = node.events()
        for packet in packets:
            self._mix(4, packet.data)
            self.network.send(host.address, packet.destination, packet.data, now)
        if events:
            self._note(host, events)
        if host.node is node:
            try:
                self.limits.meetings.follow(host)
                for ticket in node.limiter.decided():
                    if isinstance(ticket, SlotTicket):
                        self.slot_use.decided(host, ticket)
                    else:
                        self.limits.settled(host, [ticket])
                self.beginnings.after_event(host, packets, local=local)
                self.decisions.after_event(host, local=local)
                self.majorities.after_event(host)
                host.watch.after_event(packets)
            except Broken as broken:
                raise Broken(broken.rule, f"{host.label}: {broken.detail}") from None
            self._arm(host)

    def _note(self, host: Host, events: list[Event]) -> None:
        if len(events) > EVENTS_QUEUED_MAX:
            raise Broken("queue", f"{host.label}: {len(events):,} events")
        for event in events:
            if self._trace is not None:
                self.trace(host.label, str(event))
            self._mix(5, type(event).__name__.encode())
        self.observer.events(host, events, self)

    def _arm(self, host: Host) -> None:
        deadline = host.node.next_deadline()
        if deadline is None or host.paused_until is not None:
            return
        due = host.simulated(deadline)
        if host.armed_at is None or due < host.armed_at:
            host.armed_at = max(due, self.now)
            self.schedule(due, self._timer, host, host.start_count, host.armed_at)

    def _timer(self, now: float, host: Host, start_count: int, armed_at: float) -> None:
        if host.start_count != start_count or not host.is_running:
            return
        if host.armed_at is not None and host.armed_at != armed_at:
            return
        host.armed_at = None
        handled_at = host.monotonic(now)

        def handle(node: MeshNode, local: float) -> None:
            nonlocal handled_at
            deadline = node.next_deadline()
            # The sum of two floats may fall short of the deadline that it came from.
            handled_at = (
                local if deadline is None or deadline - local > 1e-6 else max(local, deadline)
            )
            node.handle_timer(handled_at)

        node = host.node
        self._call(host, 6, host.label.encode(), handle)
        if host.node is node:
            host.watch.after_timer(now, node.next_deadline(), handled_at)

    def _deliver(self, _now: float, address: str, data: bytes, sender: str) -> bool:
        host = self._by_address.get(address)
        if host is None or host.node is None:
            return False
        if host.paused_until is not None:
            host.keep(sender, data)
        else:
            self._receive(host, sender, data)
        return True

    def _receive(self, host: Host, sender: str, data: bytes) -> None:
        def receive(node: MeshNode, local: float) -> None:
            rejected, before = node.counters.frames_rejected, node.replica.vector_hash()
            node.receive(data, sender=sender, now=local)
            if node.counters.frames_rejected == rejected:
                self.beginnings.received(host, data, hash_before=before, local=local)

        self._call(host, 7, data, receive)
        if host.node is not None:
            self.observer.after_receive(host, self)

    def _refused(self, now: float, sender: str, address: str) -> None:
        self._link_lost(now, sender, address, end=LinkEnd.REFUSED)

    def _link_lost(
        self, _now: float, sender: str, address: str, *, end: LinkEnd = LinkEnd.BROKEN
    ) -> None:
        host = self._by_address.get(sender)
        if host is not None and host.is_running:

            def lose(node: MeshNode, local: float) -> None:
                node.connection_lost(address, now=local, end=end)

            self._call(host, 8, bytes([end is LinkEnd.REFUSED]), lose)

    def _link_busy(self, _now: float, sender: str, address: str, is_busy: bool) -> None:
        host = self._by_address.get(sender)
        if host is None or host.node is None:
            return
        if host.paused_until is not None:
            host.link_reports[address] = is_busy
        else:
            self.sometimes.count("link_was_busy", int(is_busy))
            self._call(
                host,
                9,
                b"",
                lambda node, local: node.link_state(address, is_busy=is_busy, now=local),
            )

    def _follow(self, host: Host, own_moved_to: int) -> None:
        """Tell the spread of a vector that moved; of a write, when its writer's number did."""
        if self._spread is None:
            return
        replica = host.node.replica
        if own_moved_to:
            others = [other.label for other in self.running() if other is not host]
            self._spread.written(replica.actor, own_moved_to, others=others, now=self.now)
        self._spread.reached(host.label, replica.version_vector, self.now)

    # The run

    def run(self, *, progress: Callable[[float], None] | None = None) -> Outcome:
        """Make the whole run: start, faults, calm. Never raises on what the nodes do.

        Args:
            progress: is given the share of the time with faults that has passed.
        """
        duration_s = self.scenario.faults_end_s
        try:
            self._begin()
            for step in range(PROGRESS_STEPS):
                self.advance(duration_s * (step + 1) / PROGRESS_STEPS)
                if progress is not None:
                    progress((step + 1) / PROGRESS_STEPS)
            self.calm.begin()
            self.calm.run()
        except Broken as broken:
            self._fail(broken.rule, broken.detail)
        except Exception as error:  # noqa: BLE001 - whatever a node raises is the finding
            self._fail("exception", "".join(traceback.format_exception(error)))
        return self.outcome()

    def _fail(self, rule: str, detail: str) -> None:
        self.trace("", f"{rule}: {detail}")
        self.failure = Failure(rule=rule, detail=detail, at_s=self.now)

    def _begin(self) -> None:
        for label in machine_names(self.scenario.node_count):
            self.schedule(self._places.uniform(0.0, BOOT_S), self.start, self.add_host(label))
        for incident in self.scenario.incidents:
            self.schedule(incident.at_s, self.incidents.begin, incident)
        self.schedule(self.workload.wait_s(), self._write)
        self.slot_use.begin()
        self.prompt_use.begin()

    def _write(self, now: float) -> None:
        if self.is_calm:
            return
        self.schedule(now + self.workload.wait_s(), self._write)
        hosts = [host for host in self.hosts.values() if host.is_running and not host.is_leaving]
        if hosts:
            host = self._writers.choice(hosts)
            self._call(host, 10, b"", lambda _node, _local: self.workload.write(host, now))

    def outcome(self) -> Outcome:
        """Return what came of it so far."""
        self.observer.close(self)
        return Outcome(
            seed=self.scenario.seed,
            node_count=self.scenario.node_count,
            duration_s=self.scenario.duration_s,
            simulated_s=self.now,
            event_count=self.event_count,
            packets_sent=self.network.packets_sent,
            packets_lost=self.network.packets_lost,
            bytes_sent=self.network.bytes_sent,
            writes=self.ledger.count,
            incidents=len(self.scenario.incidents),
            converged_after_s=self.calm.converged_after_s,
            trace_digest=self.trace_digest,
            sometimes=self.sometimes.counts(),
            failure=self.failure,
            replay_arguments=replay_arguments(self.scenario),
            spread=None if self._spread is None else self._spread.report(),
        )
