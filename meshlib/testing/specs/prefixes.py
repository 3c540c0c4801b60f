"""Specs of the prefix caches: by text, and by the hashes of blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

from attrs import frozen
from hypothesis import strategies as st

from meshlib.crdt import HashedPrefixCacheState, PrefixCacheState
from meshlib.errors import UnknownKeyError
from meshlib.testing.laws.spec import CRDTSpec, Event, Operation
from meshlib.testing.mutants.changes import with_join, with_states
from meshlib.testing.specs.common import CODEC, absorb, remembered

__all__ = ["PREFIX_CACHE", "PREFIX_CACHE_HASH"]

TENANTS: Final = st.sampled_from(["t", "u"])
TEXTS: Final = st.sampled_from(["a", "ab", "abc", "abd", "b", "é"])
CHAINS: Final = st.sampled_from([(1,), (1, 2), (1, 2, 3), (1, 4), (5,), ((1 << 64) - 1,)])
ACCESSES: Final = st.integers(1, 4)
EPOCHS: Final = st.integers(1, 3)
TEXT_PROBES: Final = ("abcd", "abdx", "bé", "é")
BLOCK_PROBES: Final = ((1, 2, 3, 4), (1, 4, 2), (5, 1))


@frozen(slots=True)
class _Cached:
    """What is known of one tenant."""

    epoch: int = 0
    floor: int = 0
    entries: Mapping[Any, int] = {}


def _cached(events: Sequence[Event], tenant: str) -> _Cached:
    """Return the newest epoch, its highest floor, and the entries above that, by last access."""
    told = [_told(event) for event in events if event["tenant"] == tenant]
    epoch = max((one.epoch for one in told), default=0)
    current = [one for one in told if one.epoch == epoch]
    floor = max((one.floor for one in current), default=0)
    entries: dict[Any, int] = {}
    for one in current:
        for key, access in one.entries.items():
            if access > max(floor, entries.get(key, 0)):
                entries[key] = access
    return _Cached(epoch, floor, entries)


@remembered
def _told(event: Event) -> _Cached:
    """Return what one write says, given what its writer had seen."""
    here = _cached(event.seen, event["tenant"])
    if event.operation == "remove_tenant":
        return _Cached(max(event["epoch"], here.epoch + 1))
    if event.operation == "evict":
        is_needed = any(access <= event["floor"] for access in here.entries.values())
        return _Cached(here.epoch, event["floor"]) if is_needed else _Cached()
    access = event["access"]
    keys = event["chain"] if "chain" in event.arguments else (event["text"],)
    fresh = {key: access for key in keys if access > max(here.floor, here.entries.get(key, 0))}
    return _Cached(here.epoch, 0, fresh) if fresh else _Cached()


def _tenants(events: Sequence[Event]) -> dict[str, dict[Any, int]]:
    known = {tenant: _cached(events, tenant).entries for tenant in ("t", "u")}
    return {tenant: dict(entries) for tenant, entries in known.items() if entries}


def _longest(lengths: Mapping[str, int]) -> tuple[tuple[str, ...], int]:
    """Return who has the longest match, and how long it is."""
    longest = max(lengths.values(), default=0)
    return tuple(sorted(who for who, length in lengths.items() if length == longest > 0)), longest


def _shared_characters(text: str, other: str) -> int:
    pairs = zip(text, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _text_oracle(events: Sequence[Event]) -> tuple[Any, ...]:
    """Return the entries, and for each probe who has most of it, by looking at every entry."""
    held = _tenants(events)
    matches = [
        _longest({who: max(_shared_characters(t, probe) for t in held[who]) for who in held})
        for probe in TEXT_PROBES
    ]
    return held, matches


def _leading_blocks(chain: Sequence[int], held: Mapping[int, int]) -> int:
    return next((place for place, block in enumerate(chain) if block not in held), len(chain))


def _block_oracle(events: Sequence[Event]) -> tuple[Any, ...]:
    held = _tenants(events)
    matches = [
        _longest({who: _leading_blocks(probe, held[who]) for who in held}) for probe in BLOCK_PROBES
    ]
    return held, matches


def _read(probes: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda state: (state.value, [tuple(state.match(probe)) for probe in probes])


def _floor_is_forgotten(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """Floors are not kept, so what was evicted comes back from a peer."""

    def damaged(state: Any) -> Any:
        kept = (part for part in state.decompose() if len(part) or not _has_floor(part))
        return spec.fold(kept)

    return with_states(spec, damaged)


def _has_floor(part: Any) -> bool:
    return any(part.generation(tenant).floor for tenant in ("t", "u"))


def _inserted(state: Any, tenant: str, key: Any, access: int) -> Any:
    if isinstance(state, PrefixCacheState):
        return state.insert(key, tenant=tenant, access=access)
    return state.insert_blocks((key,), tenant=tenant, access=access)


def _epoch_is_forgotten(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """Epochs are not kept, so a removed tenant comes back from a peer."""

    def damaged(state: Any) -> Any:
        return spec.fold(
            _inserted(spec.bottom(), tenant, key, access)
            for tenant in state.tenants()
            for key, access in state.entries(tenant)
        )

    return with_states(spec, damaged)


def _older_epoch_is_joined(spec: CRDTSpec[Any]) -> CRDTSpec[Any]:
    """Entries of an older epoch are taken over into the newer one."""

    def join(mine: Any, theirs: Any) -> Any:
        joined = spec.join(mine, theirs)
        for side in (mine, theirs):
            for tenant in side.tenants():
                for key, access in side.entries(tenant):
                    joined = spec.join(joined, _inserted(joined, tenant, key, access))
        return joined

    return with_join(spec, join)


def _common() -> dict[str, Operation[Any]]:
    return {
        "remove_tenant": Operation(
            apply=lambda state, _context, tenant, epoch: state.remove_tenant(tenant, epoch=epoch),
            arguments={"tenant": TENANTS, "epoch": EPOCHS},
            ensures=lambda before, after, tenant, epoch: (
                after.entry_count(tenant) == 0
                and after.generation(tenant).epoch >= max(epoch, before.generation(tenant).epoch)
            ),
        ),
        "evict": Operation(
            apply=lambda state, _context, tenant, floor: state.evict(tenant, floor=floor),
            arguments={"tenant": TENANTS, "floor": st.integers(1, 3)},
            ensures=lambda _before, after, tenant, floor: (
                (after.oldest_access(tenant) or floor + 1) > floor
            ),
        ),
    }


_FAULTS: Final[Mapping[str, Callable[[CRDTSpec[Any]], CRDTSpec[Any]]]] = {
    "floor is forgotten": _floor_is_forgotten,
    "tombstones dropped early": _epoch_is_forgotten,
    "older epoch is joined": _older_epoch_is_joined,
}


def _is_recorded(state: Any, key: Any, tenant: str, access: int) -> bool:
    """Tell whether an entry is there, and as young, unless it is at or under the floor."""
    held = state.access(key, tenant=tenant)
    return access <= state.generation(tenant).floor or (held is not None and held >= access)


PREFIX_CACHE: Final = CRDTSpec(
    name="prefix_cache",
    bottom=PrefixCacheState,
    operations={
        "insert": Operation(
            apply=lambda state, _context, text, tenant, access: state.insert(
                text, tenant=tenant, access=access
            ),
            arguments={"text": TEXTS, "tenant": TENANTS, "access": ACCESSES},
            ensures=lambda _before, after, text, tenant, access: _is_recorded(
                after, text, tenant, access
            ),
        ),
        "touch": Operation(
            apply=lambda state, _context, text, tenant, access: state.touch(
                text, tenant=tenant, access=access
            ),
            arguments={"text": TEXTS, "tenant": TENANTS, "access": ACCESSES},
            ensures=lambda _before, after, text, tenant, access: _is_recorded(
                after, text, tenant, access
            ),
        ),
        **_common(),
    },
    value=_read(TEXT_PROBES),
    oracle=_text_oracle,
    codec=CODEC,
    absorb=absorb,
    pinned=("tenant", "text"),
    refusals=(UnknownKeyError,),
    faults=_FAULTS,
)
"""Each tenant holds the texts of its newest visible epoch above its floor; a match is the longest
prefix that any of them shares with a text."""


PREFIX_CACHE_HASH: Final = CRDTSpec(
    name="prefix_cache_hash",
    bottom=HashedPrefixCacheState,
    operations={
        "insert_blocks": Operation(
            apply=lambda state, _context, chain, tenant, access: state.insert_blocks(
                chain, tenant=tenant, access=access
            ),
            arguments={"chain": CHAINS, "tenant": TENANTS, "access": ACCESSES},
            ensures=lambda _before, after, chain, tenant, access: all(
                _is_recorded(after, block, tenant, access) for block in chain
            ),
        ),
        **_common(),
    },
    value=_read(BLOCK_PROBES),
    oracle=_block_oracle,
    codec=CODEC,
    absorb=absorb,
    pinned=("tenant", "chain"),
    refusals=(),
    faults=_FAULTS,
)
"""As `PREFIX_CACHE`, with the hashes of blocks for texts; a match counts leading blocks."""
