"""Counters of the interesting states: proof that a campaign of seeds reached them.

A checker that never fires proves nothing when what it guards against never came near. Each name
here is a state that must occur sometimes over a campaign; a name that stays at zero means that
the faults, and not the engine, are too weak.
Source: Antithesis's `sometimes` assertions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["SOMETIMES", "Sometimes"]

SOMETIMES: Mapping[str, str] = {
    "suspicion_refuted": "a suspected member proved that it lives",
    "indirect_probe_saved": "a helper reached a member that did not answer directly",
    "suspicion_confirmed_down": "a suspicion ran out and the member was declared Down",
    "false_down_healed": "a member that was Down only for others came back",
    "local_pause_noticed": "a node noticed that it had been stopped",
    "gap_requested": "entries that were skipped were asked for",
    "gap_filled": "what waited behind a gap was absorbed",
    "transfer_over_log": "a state transfer replaced a log that was too short",
    "transfer_of_many_pages": "a state transfer took more than one page",
    "transfer_interrupted": "a state transfer was given up",
    "difference_repaired": "what a transfer that broke off had left was evened out",
    "log_shortened": "entries that a peer may have lacked were dropped from a log",
    "gap_buffer_full": "an entry ahead of a gap found no room",
    "write_refused_for_a_clock": "a node far ahead of the majority took no write",
    "seen_before_it_was_joined": "a node that was not ready showed what was still coming",
    "entries_held": "entries of a clock that is ahead had to wait",
    "exchange_during_partition": "two nodes on one side exchanged state while links were cut",
    "removed_then_written_again": "a removed key was written again",
    "tombstone_collected": "a removal was forgotten because everyone had seen it",
    "tombstone_collected_during_partition": "the same, while links were cut",
    "removal_learnt_from_transfer": "a transfer told of a removal without its tombstone",
    "concurrent_writes": "two nodes wrote one key without knowing of each other",
    "name_conflict": "two processes claimed one name",
    "identity_renewed": "a node came back as another writer",
    "stamped_again": "what a clock ahead had stamped before anybody was met was put back",
    "rejoined": "it had adopted a peer's state and written again what only it had",
    "member_forgotten": "a member that was gone for long was forgotten",
    "member_left": "a member said goodbye",
    "started_from_snapshot": "a process began with the state that an earlier one had kept",
    "began_after_waiting": "a node began, for no ready peer was heard",
    "began_isolated": "a node that met nobody began",
    "refused_before_ready": "a node that was not ready decided nothing",
    "decided_openly": "a node that was not ready admitted, for its settings say so",
    "majority_in_reach": "a node went on with a majority while somebody was Down",
    "majority_out_of_reach": "a node that has met others had no majority",
    "survivor_of_two": "one of two had ended, and the other was whole",
    "tenant_left_nothing": "a worker that cached texts is removed, or serves another model",
    "operator_beat_a_file": "a policy was written of which a file says something too",
    "default_came_back": "a policy that was written is removed, and a file's is in force",
    "leave_delayed": "a leaving node waited until others had what it has",
    "rolled": "every node was restarted in turn, each time waiting until all were ready",
    "rolled_in_haste": "the same, waiting only until each had met somebody",
    "restart_met_as_new": "a restarted node was met in its new incarnation",
    "packet_damaged": "a damaged packet was refused",
    "packet_of_the_past": "a packet of an incarnation that is over was refused",
    "packet_replayed": "an old packet arrived once more",
    "link_was_busy": "a link filled, and deltas waited in the log instead",
    "beginning_named": "a text came as its end behind the name of its beginning",
    "beginning_unknown": "a beginning was not known, and the whole text was asked for",
    "sparse_forwarding": "an entry reached a node through a third one in a sparse graph",
}
"""Name to what it means."""


class Sometimes:
    """Counts how often each of `SOMETIMES` was reached."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = dict.fromkeys(SOMETIMES, 0)

    def count(self, name: str, times: int = 1) -> None:
        """Count that a state was reached.

        Raises:
            KeyError: no such name: each must be explained in `SOMETIMES`.
        """
        self._counts[name] += times

    def counts(self) -> dict[str, int]:
        """Return name to count, every name, in the order of `SOMETIMES`."""
        return dict(self._counts)

    @staticmethod
    def never(runs: Iterable[Mapping[str, int]]) -> list[str]:
        """Return the names that no run of a campaign reached."""
        totals = dict.fromkeys(SOMETIMES, 0)
        for run in runs:
            for name, count in run.items():
                totals[name] += count
        return [name for name, count in totals.items() if not count]
