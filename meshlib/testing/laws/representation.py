"""The laws of representation: bytes, digests, copies, and who may change what."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import combinations
from typing import Any, Final

from meshlib.testing.laws.foreign import grown
from meshlib.testing.laws.processes import replay_elsewhere
from meshlib.testing.laws.spec import Event, OperationContext
from meshlib.testing.laws.trial import PURE, PURITY, Law, Trial

__all__ = ["REPRESENTATION"]


def _bytes_are_canonical(trial: Trial[Any]) -> None:
    codec, history = trial.spec.codec, trial.history
    assert codec is not None
    forth = history.deltas_joined(history.events)
    back = history.deltas_joined(reversed(history.events))
    trial.holds(
        codec.encode(forth) == codec.encode(back),
        f"all deltas in order encode to {codec.encode(forth)!r}",
        f"from newest to oldest to {codec.encode(back)!r}",
    )
    named = list(zip("abc", trial.elements, strict=True))
    for (left_name, left), (right_name, right) in combinations(named, 2):
        is_equal = bool(trial.spec.equal(left, right))
        trial.holds(
            is_equal == bool(trial.spec.equal(right, left)),
            f"{left_name} == {right_name} is {is_equal}",
            f"{right_name} == {left_name} is {not is_equal}",
        )
        trial.holds(
            (codec.encode(left) == codec.encode(right)) == is_equal,
            f"{left_name} == {right_name} is {is_equal}",
            f"{left_name} encodes to {codec.encode(left)!r}",
            f"{right_name} encodes to {codec.encode(right)!r}",
        )


def _bytes_are_the_same_in_every_process(trial: Trial[Any]) -> None:
    codec = trial.spec.codec
    assert codec is not None
    here = [codec.encode(state).hex() for state in trial.history.states()]
    for seed, there in replay_elsewhere(
        trial.spec, replica_count=trial.world.replica_count, program=trial.draw.program
    ):
        trial.holds(
            here == there,
            f"the states of the replicas encode here to {here}",
            f"and with PYTHONHASHSEED={seed} to {there}",
        )


def _codec_round_trips(trial: Trial[Any]) -> None:
    spec, codec = trial.spec, trial.spec.codec
    assert codec is not None
    for words, state in _named(trial):
        data = codec.encode(state)
        decoded = codec.decode(data)
        trial.equal(f"{words}, encoded and decoded", decoded, words, state)
        trial.holds(
            codec.encode(decoded) == data,
            f"{words} encodes to {data!r}",
            f"decoded and encoded again to {codec.encode(decoded)!r}",
        )
        if spec.digest is not None:
            trial.holds(
                spec.digest(decoded) == spec.digest(state),
                f"{words} = {trial.show(state)}",
                "has another digest once it is encoded and decoded",
            )


def _bytes_join_as_their_state(trial: Trial[Any]) -> None:
    spec, codec = trial.spec, trial.spec.codec
    assert codec is not None
    a, b = trial.elements

    def arrived(state: Any) -> Any:
        return codec.decode(codec.encode(state))

    due = spec.join(a, b)
    for words, joined in (
        ("a | b, b just decoded", spec.join(a, arrived(b))),
        ("a | b, both just decoded", spec.join(arrived(a), arrived(b))),
    ):
        trial.equal(words, joined, "a | b", due)
        trial.holds(
            codec.encode(joined) == codec.encode(due),
            f"{words} encodes to {codec.encode(joined)!r}",
            f"a | b encodes to {codec.encode(due)!r}",
        )
    trial.below("b, just decoded", arrived(b), "a | b", due)
    if spec.absorb is None:
        return
    joined, new = spec.absorb(spec.copy(a), arrived(b))
    trial.equal("a after it absorbed b, just decoded", joined, "a | b", due)
    _, new_in_state = spec.absorb(spec.copy(a), b)
    trial.equal("what was new in b, just decoded", new, "what was new in b", new_in_state)
    joined_here, _ = spec.absorb(arrived(a), arrived(b))
    trial.equal("a, just decoded, after it absorbed that", joined_here, "a | b", due)


def _malformed_bytes_are_refused(trial: Trial[Any]) -> None:
    codec = trial.spec.codec
    assert codec is not None
    (a,) = trial.elements
    data = codec.encode(a)
    others = [codec.encode(event.delta) for event in trial.history.events]
    for damaged in (*_damaged(data, trial.numbers), *grown(data, others)):
        try:
            state = codec.decode(damaged)
        except codec.errors:
            continue
        except Exception as error:  # noqa: BLE001 - any other is what this law is about
            trial.fail(
                f"{damaged!r} is {data!r}, damaged",
                f"decoding it raised {type(error).__name__}: {error}",
            )
        data_again = codec.encode(state)
        trial.holds(
            data_again == damaged or not codec.is_strict,
            f"{damaged!r} was decoded",
            f"it is a state whose bytes are {data_again!r}",
        )
        _is_sound(trial, f"what {damaged!r} was decoded to", state)


def _is_sound(trial: Trial[Any], words: str, state: Any) -> None:
    """Require a state in normal form: one that every join leaves as it is, and its bytes too."""
    spec = trial.spec
    assert spec.codec is not None
    bottom = spec.bottom()
    trial.equal(
        f"{words}, encoded and decoded", spec.codec.decode(spec.codec.encode(state)), words, state
    )
    trial.equal(f"{words}, joined with itself", spec.join(state, state), words, state)
    trial.equal(f"{words}, joined with the bottom", spec.join(state, bottom), words, state)
    trial.equal(f"the bottom, joined with {words}", spec.join(bottom, state), words, state)
    if spec.decompose is not None:
        trial.equal(f"the parts of {words}", spec.fold(spec.decompose(state)), words, state)


def _damaged(data: bytes, numbers: tuple[int, ...]) -> Iterator[bytes]:
    """Yield the bytes cut short, lengthened, and with single bits and bytes changed."""
    yield data + b"\x00"
    for number in numbers:
        position, what = number % max(1, len(data)), number // 7
        yield data[:position]
        if data:
            changed = data[position] ^ (1 << what % 8)
            yield data[:position] + bytes([changed]) + data[position + 1 :]
            yield data[:position] + bytes([what % 256]) + data[position + 1 :]
            yield data[:position] + data[position + 1 :]


def _inputs_are_never_changed(trial: Trial[Any]) -> None:
    spec = trial.spec
    kept = [copy.deepcopy(state) for state in trial.elements]
    a, b, c = trial.elements

    def unchanged(what: str) -> None:
        for name, state, before in zip("abc", trial.elements, kept, strict=True):
            trial.equal(f"{name} after {what}", state, f"{name} before it", before)
            if spec.codec is not None:
                trial.holds(
                    spec.codec.encode(state) == spec.codec.encode(before),
                    f"{name} encodes to other bytes after {what}",
                )

    joined = spec.join(a, b)
    unchanged("a | b")
    spec.order(a, b)
    spec.equal(a, b)
    spec.value(a)
    if spec.digest is not None:
        spec.digest(a)
    unchanged("reading")
    parts = list(spec.decompose(a)) if spec.decompose is not None else []
    unchanged("a.decompose()")
    if spec.absorb is not None:
        separate = spec.copy(a)
        for target in (joined, separate, *parts):
            spec.absorb(target, b)
            unchanged("b was absorbed by a | b, by a copy and by a part of a")
            spec.absorb(target, c)
        unchanged("c was absorbed by them too")
    for write in trial.history.transitions:
        _apply_leaves_its_state_alone(trial, write.event)


def _apply_leaves_its_state_alone(trial: Trial[Any], event: Event) -> None:
    """Replay one write on the join of what its writer had seen, and compare that join after."""
    spec = trial.spec
    state = trial.history.deltas_joined(event.seen)
    before = copy.deepcopy(state)
    context = OperationContext(
        actor=event.actor,
        sequence=event.sequence,
        stamp=event.stamp,
        next_dot=event.dots[0].sequence if event.dots else 1,
    )
    try:
        delta = spec.operations[event.operation].apply(
            state, context, **copy.deepcopy(dict(event.arguments))
        )
    except spec.refusals:
        delta = None
    words = f"the state that write {event.index} was performed on"
    trial.equal(f"{words}, after it", state, f"{words}, before it", before)
    if delta is not None and spec.absorb is not None:
        spec.absorb(delta, trial.history.deltas_joined(trial.history.events))
        trial.equal(f"{words}, once its delta absorbed more", state, "and before", before)


def _absorb_returns_what_was_new(trial: Trial[Any]) -> None:
    spec = trial.spec
    a, b = trial.elements
    assert spec.absorb is not None
    due = spec.join(a, b)
    joined, new = spec.absorb(spec.copy(a), b)
    trial.equal("a after it absorbed b", joined, "a | b", due)
    trial.equal("a | what was new", spec.join(a, new), "a | b", due)
    trial.below("what was new", new, "b", b)
    trial.holds(
        bool(spec.equal(new, spec.bottom())) == bool(spec.order(b, a)),
        f"b <= a is {spec.order(b, a)}",
        f"a = {trial.show(a)}",
        f"b = {trial.show(b)}",
        f"what was new = {trial.show(new)}",
    )
    for part in spec.decompose(new) if spec.decompose is not None else ():
        trial.holds(
            not spec.order(part, a),
            f"a = {trial.show(a)}",
            f"what was new = {trial.show(new)}",
            f"but a had {trial.show(part)} of it",
        )
    if spec.digest is not None:
        trial.holds(
            spec.digest(joined) == spec.digest(due),
            "the digest of a | b depends on whether b was joined or absorbed",
        )


def _digest_follows_the_state(trial: Trial[Any]) -> None:
    spec = trial.spec
    assert spec.digest is not None
    named = _named(trial)
    for (left_name, left), (right_name, right) in combinations(named, 2):
        is_same = spec.digest(left) == spec.digest(right)
        if spec.equal(left, right):
            trial.holds(is_same, f"{left_name} and {right_name} are equal, their digests differ")
        elif spec.digested(left) != spec.digested(right):
            trial.holds(
                not is_same,
                f"{left_name} = {trial.show(left)}",
                f"{right_name} = {trial.show(right)}",
                "differ in what a digest must tell apart, and have one digest",
            )


def _pages_repair_what_differs(trial: Trial[Any]) -> None:
    spec = trial.spec
    a, b = trial.elements
    here, there = a.bucket_digests(), b.bucket_digests()
    trial.holds(len(here) == len(there), "the number of buckets depends on the state")
    differing = [n for n, (x, y) in enumerate(zip(here, there, strict=True)) if x != y]
    trial.equal(
        "a | the buckets of b that differ",
        spec.join(a, b.part(differing)),
        "a | b",
        spec.join(a, b),
    )
    trial.equal("all buckets of b", b.part(range(len(there))), "b", b)


def _named(trial: Trial[Any]) -> list[tuple[str, Any]]:
    everything = trial.history.deltas_joined(trial.history.events)
    return [
        *zip("abc", trial.elements, strict=False),
        ("the join of all deltas", everything),
        *(
            (f"the state of replica {number}", state)
            for number, state in enumerate(trial.history.states())
        ),
    ]


def _has_codec(spec: Any) -> bool:
    return spec.codec is not None


REPRESENTATION: Final = (
    Law(
        name="bytes_are_canonical",
        statement="states are equal exactly if their bytes are, whatever led to them",
        check=_bytes_are_canonical,
        applies=_has_codec,
        elements=3,
    ),
    Law(
        name="bytes_are_the_same_in_every_process",
        statement="a history leads to the same bytes whatever PYTHONHASHSEED is",
        check=_bytes_are_the_same_in_every_process,
        applies=_has_codec,
    ),
    Law(
        name="codec_round_trips",
        statement="decode(encode(a)) == a, with the same bytes and digest",
        check=_codec_round_trips,
        applies=_has_codec,
        elements=2,
    ),
    Law(
        name="bytes_join_as_their_state",
        statement="decode(encode(b)) joins as b does, though nobody has looked at it yet",
        check=_bytes_join_as_their_state,
        applies=_has_codec,
        elements=2,
    ),
    Law(
        name="malformed_bytes_are_refused",
        statement="damaged bytes raise the codec's errors, or are those of another sound state",
        check=_malformed_bytes_are_refused,
        applies=_has_codec,
        elements=1,
        is_ordered=True,
    ),
    Law(
        name=PURITY,
        statement=PURE,
        check=_inputs_are_never_changed,
        elements=3,
    ),
    Law(
        name="absorb_returns_what_was_new",
        statement="absorb joins, and returns the parts that were not there before",
        check=_absorb_returns_what_was_new,
        applies=lambda spec: spec.absorb is not None,
        elements=2,
    ),
    Law(
        name="digest_follows_the_state",
        statement="equal states have equal digests, and different values different ones",
        check=_digest_follows_the_state,
        applies=lambda spec: spec.digest is not None,
        elements=2,
    ),
    Law(
        name="pages_repair_what_differs",
        statement="the buckets whose digests differ hold all that differs",
        check=_pages_repair_what_differs,
        applies=lambda spec: hasattr(type(spec.bottom()), "bucket_digests"),
        elements=2,
    ),
)
"""The laws of this module, in the order of their tests."""
