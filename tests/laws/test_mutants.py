"""Every mutant of every type is caught, and `caught_by.txt` lists by which law.

The default run tries a sample of the list, `make laws` the whole. After a change of specs, laws
or mutants, `python tests/laws/test_mutants.py` writes the list anew, or the part of the types
named: for each mutant the first law, in the order of their tests, that catches it with the fewest
examples, time after time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from attrs import evolve

from meshlib.testing import Mutant, first_violation, law_names, mutants
from meshlib.testing.laws.profile import QUICK
from meshlib.testing.laws.references import find_reference
from meshlib.testing.specs import SPECS

TABLE = Path(__file__).with_name("caught_by.txt")
HEADER = """\
# Which law catches which mutant: for each broken variant of each type (`meshlib.testing.mutants`)
# the law that shows it with the fewest examples. `test_mutants.py` tries every row, and fails
# when a mutant is missing here; `python tests/laws/test_mutants.py [type ...]` writes it anew.
# What the mutants are: `meshlib/testing/mutants/general.py` for those that many types have, and
# `faults` in `meshlib/testing/specs/` for those of one type. "delta from an empty state" is, for
# a counter, the increment in place of the total, and, for a set, the removal without its dots.
#
"""
COLUMNS = (29, 31)
SEPARATOR = " | "
SAMPLE_STEP = 8
RELIABLE_TRIES = 5
EXAMPLES = (20, 100, 500, 2000)
"""How many examples are tried in turn when the list is written."""


@cache
def mutants_of(spec_name: str) -> dict[str, Mutant]:
    """Return the mutants of a type by name."""
    return {mutant.name: mutant for mutant in mutants(SPECS[spec_name])}


def listed() -> list[tuple[str, str, str]]:
    """Return the rows of the list: type, mutant, law."""
    rows = []
    for line in TABLE.read_text().splitlines():
        if not line.startswith("#"):
            spec_name, mutant_name, law = (cell.strip() for cell in line.split("|"))
            rows.append((spec_name, mutant_name, law))
    return rows


def sample() -> list[tuple[str, str, str]]:
    """Return the rows that CI tries: each type's own mutants, and an eighth of the rest.

    The own ones are tried in every run.

    Of the general ones, which most types have, each type has others in it than its neighbours,
    so that each kind is tried on some types, and each type with some kinds.
    """
    chosen = []
    for spec_number, spec_name in enumerate(SPECS):
        rows = [row for row in listed() if row[0] == spec_name]
        chosen += [
            row
            for number, row in enumerate(rows)
            if row[1] in SPECS[spec_name].faults or (number + spec_number) % SAMPLE_STEP == 0
        ]
    return chosen


def rest() -> list[tuple[str, str, str]]:
    """Return the other rows."""
    chosen = set(sample())
    return [row for row in listed() if row not in chosen]


def catching_law(mutant: Mutant, laws: Sequence[str] | None, examples: int) -> str | None:
    """Return the first law that catches a mutant, None when none does."""
    profile = evolve(QUICK, law_examples=examples)
    violation = first_violation(mutant.spec, laws=laws, profile=profile, is_shrunk=False)
    return None if violation is None else violation.law


@pytest.mark.parametrize("spec_name", SPECS)
def test_every_mutant_of_a_type_is_listed(spec_name: str) -> None:
    """The list has each mutant once, and none that there is not."""
    names = sorted(mutant for name, mutant, _ in listed() if name == spec_name)

    assert sorted(mutants_of(spec_name)) == names


def test_the_page_tells_how_many_mutants_there_are() -> None:
    """The number that it gives is that of the list."""
    page = (TABLE.parents[2] / "docs" / "testing-kit.md").read_text()

    assert f"each of the {len(listed())} mutants" in " ".join(page.split())


def check_row(row: tuple[str, str, str]) -> None:
    """Assert that the law of a row catches its mutant."""
    spec_name, mutant_name, law = row

    assert law == catching_law(mutants_of(spec_name)[mutant_name], [law], EXAMPLES[-1])


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=[] if row[1] in SPECS[row[0]].faults else pytest.mark.slow)
        for row in sample()
    ],
    ids=SEPARATOR.join,
)
def test_a_mutant_of_the_sample_is_caught_by_the_law_that_is_listed(
    row: tuple[str, str, str],
) -> None:
    """So the laws, the oracle and the arguments of each spec have teeth."""
    check_row(row)


@pytest.mark.long
@pytest.mark.parametrize("row", rest(), ids=SEPARATOR.join)
def test_every_other_mutant_is_caught_by_the_law_that_is_listed(row: tuple[str, str, str]) -> None:
    """With the sample, that is every mutant of every type."""
    check_row(row)


@pytest.mark.slow
@pytest.mark.parametrize("spec_name", [name for name in SPECS if SPECS[name].harmless])
def test_a_mutant_that_is_called_harmless_breaks_nothing(spec_name: str) -> None:
    """Else the reason that the spec gives for leaving it out would be wrong."""
    spec = SPECS[spec_name]
    whole = evolve(spec, harmless={}, reference=find_reference(spec))
    left_out = [mutant for mutant in mutants(whole) if mutant.name in spec.harmless]

    assert all(len(reason.split()) > 3 for reason in spec.harmless.values())
    assert sorted(spec.harmless) == sorted(mutant.name for mutant in left_out)
    assert [m.name for m in left_out if catching_law(m, None, EXAMPLES[0])] == []


def reliable_law(mutant: Mutant, examples: int) -> str | None:
    """Return the law that is reported time after time, with other examples each, and first.

    It is the one that was tried, but for a state that changes under another's hands: that is
    reported as such whichever law it breaks.
    """
    profile = evolve(QUICK, law_examples=examples, is_derandomized=False)
    for law in law_names(mutant.spec):
        reported = {
            None if violation is None else violation.law
            for _ in range(RELIABLE_TRIES)
            for violation in [
                first_violation(mutant.spec, laws=[law], profile=profile, is_shrunk=False)
            ]
        }
        if len(reported) == 1 and None not in reported:
            return reported.pop()
    return None


def write_list(spec_names: Sequence[str]) -> None:
    """Try every law on every mutant of some types, and write which one caught it."""
    rows = {name: [row for row in listed() if row[0] == name] for name in SPECS}
    for spec_name in spec_names:
        rows[spec_name] = []
        for name, mutant in mutants_of(spec_name).items():
            law = None
            for examples in EXAMPLES:
                law = law or reliable_law(mutant, examples)
            rows[spec_name].append((spec_name, name, law or "NOT CAUGHT"))
            sys.stdout.write(as_line(rows[spec_name][-1]))
            sys.stdout.flush()
        every_row = [row for name in sorted(SPECS) for row in sorted(rows[name])]
        TABLE.write_text(HEADER + "".join(map(as_line, every_row)))


def as_line(row: tuple[str, str, str]) -> str:
    """Return a row of the list, its columns one below the other."""
    spec_name, mutant_name, law = row
    return f"{spec_name:{COLUMNS[0]}} | {mutant_name:{COLUMNS[1]}} | {law}\n"


if __name__ == "__main__":
    write_list(sys.argv[1:] or list(SPECS))
