"""Rooms one can find: each says what lives in it, file by file, and can be read at a glance."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = sorted(
    path.parent.relative_to(ROOT)
    for package in ("meshlib", "meshlib_server")
    for path in (ROOT / package).rglob("__init__.py")
)

FILES_MAX = 16
"""What a folder may hold beside its sub-rooms and its door."""


def identify(room: Path) -> str:
    """Return the name of a room as it is imported."""
    return ".".join(room.parts)


def words_of(room: Path) -> set[str]:
    """Return the words of what a room's door says, without commas and colons."""
    said = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text())) or ""
    return {word.strip(",:;`") for word in said.split()}


def files_of(room: Path) -> set[str]:
    """Return the files of a room, its door left out."""
    return {path.name for path in (ROOT / room).glob("*.py")} - {"__init__.py"}


def sub_rooms_of(room: Path) -> set[str]:
    """Return the sub-rooms of a room, each with a slash at its end."""
    return {f"{each.name}/" for each in ROOMS if each.parent == room}


@pytest.mark.parametrize("room", ROOMS, ids=identify)
def test_a_door_names_everything_behind_it(room: Path) -> None:
    """The docstring of a room's `__init__` names each file and each sub-room of it."""
    there = files_of(room) - {"__main__.py"} | sub_rooms_of(room)

    assert there - words_of(room) == set()


@pytest.mark.parametrize("room", ROOMS, ids=identify)
def test_a_door_names_nothing_that_is_gone(room: Path) -> None:
    """A file that was moved or renamed is no longer named where it was."""
    named = {word for word in words_of(room) if word.endswith((".py", "/"))}

    assert named - files_of(room) - sub_rooms_of(room) == set()


@pytest.mark.parametrize("room", ROOMS, ids=identify)
def test_a_room_can_be_read_at_a_glance(room: Path) -> None:
    """A folder with more files is divided by what they are about."""
    assert len(files_of(room)) <= FILES_MAX


def test_every_folder_with_code_is_a_room() -> None:
    """No file stands in a folder without a door."""
    folders = {
        path.parent.relative_to(ROOT)
        for package in ("meshlib", "meshlib_server")
        for path in (ROOT / package).rglob("*.py")
    }

    assert folders == set(ROOMS)
