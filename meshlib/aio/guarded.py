"""What a running node hands out, kept by whoever: each use of it is judged first.

Rule: nothing here lists the verbs that are guarded. Whatever is public on an object is, and so is
what is reached through it, so that a verb that is added tomorrow cannot be forgotten.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import Enum
from inspect import isfunction
from typing import Any, Final, TypeVar, cast

import attrs

__all__ = ["guarded"]

T = TypeVar("T")

_OWN_METHODS: Final = frozenset({
    "__init__", "__new__", "__init_subclass__", "__class_getitem__", "__getattr__",
    "__getattribute__", "__setattr__", "__delattr__", "__repr__", "__eq__", "__ne__", "__hash__",
    "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__subclasshook__",
})  # fmt: skip
"""Special methods that a guarded object has of its own, or as any object has them."""


def guarded(thing: T, check: Callable[[], None], *, always: frozenset[str] = frozenset()) -> T:
    """Return an object that does what another does, and has each use of it judged first.

    It is an instance of the other's class, for readers and type checkers alike, and holds nothing
    itself. The one behind it costs what it did: who drives it goes on using that one. O(1); a
    call through the guarded one takes some 0.2 µs more.

    Args:
        thing: an object of this package.
        check: called before anything is done, and raises to refuse it.
        always: attributes that may be read by anybody at any time.
    """
    of: Any = type(thing)
    made: Any = object.__new__(_guarded_class(of, always))
    put = object.__setattr__
    put(made, "_guarded_thing", thing)
    put(made, "_guarded_check", check)
    put(made, "_guarded_parts", {})
    return cast("T", made)


@functools.cache
def _acts(kind: type) -> bool:
    """Tell whether objects of a class act, as a store does, and are no record and no lattice."""
    return (
        kind.__module__.startswith("meshlib.")
        and not kind.__module__.startswith("meshlib.crdt.")
        and not attrs.has(kind)
        and not issubclass(kind, type | Enum | BaseException)
    )


def _part(holder: Any, name: str) -> Any:
    """Return a public attribute's value, guarded in turn when it is an object that acts."""
    holder._guarded_check()  # noqa: SLF001 - of the classes that are made here
    value = getattr(holder._guarded_thing, name)  # noqa: SLF001 - likewise
    parts: dict[str, tuple[object, object]] = holder._guarded_parts  # noqa: SLF001 - likewise
    held = parts.get(name)
    if held is not None and held[0] is value:
        return held[1]
    kind: Any = type(value)
    if not _acts(kind):
        return value
    made = guarded(value, holder._guarded_check)  # noqa: SLF001 - likewise
    parts[name] = (value, made)
    return made


def _verb(function: Callable[..., Any]) -> Callable[..., Any]:
    name = function.__name__

    @functools.wraps(function)
    def judged(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._guarded_check()
        return getattr(self._guarded_thing, name)(*args, **kwargs)

    return judged


def _unjudged(name: str) -> Callable[[Any], Any]:
    return lambda self: getattr(self._guarded_thing, name)


def _value(name: str, doc: str | None) -> property:
    return property(
        lambda self: _part(self, name),
        lambda self, value: setattr(self, name, value),
        doc=doc,
    )


def _get(self: Any, name: str) -> Any:
    """Return what is in no class: an object's own attribute."""
    if name.startswith("_"):
        return getattr(object.__getattribute__(self, "_guarded_thing"), name)
    return _part(self, name)


def _delete(self: Any, name: str) -> None:
    if not name.startswith("_"):
        self._guarded_check()
    delattr(self._guarded_thing, name)


def _set(self: Any, name: str, value: Any) -> None:
    if not name.startswith("_"):
        self._guarded_check()
    setattr(self._guarded_thing, name, value)


def _show(self: Any) -> str:
    return repr(self._guarded_thing)


@functools.cache  # one for each class of this package that is ever handed out
def _guarded_class(kind: type, always: frozenset[str]) -> type:
    members: dict[str, Any] = {}
    for base in kind.__mro__:
        if base is object:
            continue
        for name, member in vars(base).items():
            is_special = name.startswith("__") and name.endswith("__")
            if name in members or name in _OWN_METHODS or (name.startswith("_") and not is_special):
                continue
            if name in always:
                members[name] = property(_unjudged(name), doc=getattr(member, "__doc__", None))
            elif isfunction(member):
                members[name] = _verb(member)
            elif hasattr(type(member), "__get__") and not (
                is_special or isinstance(member, staticmethod | classmethod | type)
            ):
                members[name] = _value(name, getattr(member, "__doc__", None))
    return type(
        kind.__name__,
        (kind,),
        {
            **members,
            "__slots__": ("_guarded_check", "_guarded_parts", "_guarded_thing"),
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "__doc__": kind.__doc__,
            "__getattr__": _get,
            "__setattr__": _set,
            "__delattr__": _delete,
            "__repr__": _show,
        },
    )
