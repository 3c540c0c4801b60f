"""What a fuzzer found is tried again each time: `make fuzz` finds more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.fuzz_targets import CORPUS, TARGETS, close, read_corpus


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    """End the server that a target begins."""
    yield
    close()


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_that_reached_something_is_a_fault(target: str) -> None:
    """A decoder reads it or refuses it, and the server answers it in HTTP and without a defect."""
    inputs = read_corpus(target)

    assert len(inputs) >= 10
    for data in inputs:
        TARGETS[target](data)


def test_every_corpus_is_of_a_target() -> None:
    """One that was renamed is not forgotten."""
    assert {path.stem for path in CORPUS.iterdir()} == set(TARGETS)
