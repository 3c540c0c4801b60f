"""An extension of griffe: what the reference has to know of this house.

A class made by `attrs.frozen` or `attrs.define` gets an `__init__` whose parameters are its
fields, with their annotations and defaults, so that the reference shows how it is called. The
list of files in the docstring of a room keeps its lines.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import (
    Attribute,
    Class,
    Expr,
    ExprCall,
    ExprKeyword,
    Extension,
    Function,
    Kind,
    Module,
    Parameter,
    ParameterKind,
    Parameters,
)

_MAKERS = {"attrs.frozen", "attrs.define", "attr.frozen", "attr.define"}


class HouseExtension(Extension):
    """Gives attrs classes the signature that attrs makes, and keeps lists of files as they are."""

    def on_module(self, *, mod: Module, **_: Any) -> None:
        """Show what is laid out in columns as it stands."""
        if mod.docstring is not None:
            paragraphs = mod.docstring.value.split("\n\n")
            mod.docstring.value = "\n\n".join(map(_as_it_stands, paragraphs))

    def on_class(self, *, cls: Class, **_: Any) -> None:
        """Add `__init__` to one class, unless it has its own or attrs makes none."""
        maker = next((d for d in cls.decorators if d.callable_path in _MAKERS), None)
        if maker is None or "__init__" in cls.members:
            return
        is_keyword_only = _argument(maker.value, "kw_only") == "True"
        fields = [
            member
            for member in cls.members.values()
            if isinstance(member, Attribute)
            and member.annotation is not None
            and "ClassVar" not in str(member.annotation)
        ]
        parameters = [Parameter("self", kind=ParameterKind.positional_or_keyword)]
        for member in fields:
            default = _default(member.value)
            if default == "":
                continue
            parameters.append(
                Parameter(
                    member.name.lstrip("_"),
                    annotation=member.annotation,
                    kind=ParameterKind.keyword_only
                    if is_keyword_only or _argument(member.value, "kw_only") == "True"
                    else ParameterKind.positional_or_keyword,
                    default=default,
                )
            )
        cls.set_member("__init__", Function("__init__", parameters=Parameters(*parameters)))
        assert cls.members["__init__"].kind is Kind.FUNCTION


def _as_it_stands(paragraph: str) -> str:
    """Indent a paragraph that has columns, which makes it a block of text."""
    if re.search(r"\S {2,}\S", paragraph) and not paragraph.startswith("    "):
        return "\n".join("    " + line for line in paragraph.splitlines())
    return paragraph


def _argument(call: Any, name: str) -> str | None:
    """Return a keyword argument of a call as it is written, or None."""
    if isinstance(call, ExprCall):
        for argument in call.arguments:
            if isinstance(argument, ExprKeyword) and argument.name == name:
                return str(argument.value)
    return None


def _default(value: Any) -> Any:
    """Return a field's default: None for none, and "" for a field that is no parameter."""
    if not (isinstance(value, ExprCall) and str(value.function).split(".")[-1] == "field"):
        return value if value is None or isinstance(value, Expr | str) else str(value)
    if _argument(value, "init") == "False":
        return ""
    default = _argument(value, "default")
    if default is not None:
        return default
    factory = _argument(value, "factory")
    return None if factory is None else f"{factory}()"
