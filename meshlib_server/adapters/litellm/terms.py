"""Which limits a call is under, and the keys that they are counted by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import field, frozen

from meshlib.limits import SLOTS_MAX

__all__ = ["CallerTerms", "ModelTerms", "Term", "terms_of"]

REQUESTS: Final = "requests"
TOKENS: Final = "tokens"
PARALLEL: Final = "parallel"

_HOLDERS: Final = (
    # who, the attribute that names them, those of their requests and tokens a minute
    ("key", "api_key", "rpm_limit", "tpm_limit"),
    ("user", "user_id", "user_rpm_limit", "user_tpm_limit"),
    ("team", "team_id", "team_rpm_limit", "team_tpm_limit"),
)


@frozen(kw_only=True)
class ModelTerms:
    """What one model admits over all callers and replicas.

    Args:
        rpm: requests a minute; None: any.
        tpm: tokens a minute; None: any.
        parallel: calls that run at the same time; None: any.
    """

    rpm: int | None = None
    tpm: int | None = None
    parallel: int | None = None


@frozen(kw_only=True)
class CallerTerms:
    """What each user and each team may have at once, for which LiteLLM keeps no such limit.

    Args:
        user_parallel: calls of one user that run at the same time; None: any.
        team_parallel: the same of one team. A team whose metadata has `max_parallel_requests` has
            that in its place.
    """

    user_parallel: int | None = None
    team_parallel: int | None = None


ANY_CALLERS: Final = CallerTerms()
"""What users and teams have of themselves: as many calls as they like."""


@frozen
class Term:
    """One limit that a call is under.

    Args:
        key: what it is counted by: the limit, what is counted, who, and their name.
        units: how many a minute, or at once; 0 let none pass.
        is_tokens: whether tokens are counted, and not requests.
        is_parallel: whether calls are counted that run at the same time.
    """

    key: str
    units: int = field(kw_only=True)
    is_tokens: bool = field(default=False, kw_only=True)
    is_parallel: bool = field(default=False, kw_only=True)

    @property
    def policy(self) -> str:
        """The limit as text, such as `20/minute` or `4 at once`."""
        return f"{self.units} at once" if self.is_parallel else _a_minute(self.units)


def _a_minute(units: int) -> str:
    return f"{units}/minute"


def terms_of(
    caller: Any,
    model: str,
    models: Mapping[str, ModelTerms],
    *,
    callers: CallerTerms = ANY_CALLERS,
) -> list[Term]:
    """Return the limits that a call is under.

    Args:
        caller: LiteLLM's record of the key, with its limits and those of its user and team.
        model: the model that is asked for.
        models: what models admit, by name.
        callers: what users and teams may have at once.
    """
    found = []
    for who, attribute, rpm, tpm in _HOLDERS:
        name = getattr(caller, attribute, None)
        if name:
            rates = (getattr(caller, rpm, None), getattr(caller, tpm, None))
            found += list(_terms(who, str(name), rates))
    in_team = (getattr(caller, "team_metadata", None) or {}).get("max_parallel_requests")
    for who, attribute, slots in (
        ("key", "api_key", getattr(caller, "max_parallel_requests", None)),
        ("user", "user_id", callers.user_parallel),
        ("team", "team_id", callers.team_parallel if in_team is None else in_team),
    ):
        name = getattr(caller, attribute, None)
        if name:
            found += _parallel(who, str(name), slots)
    if model in models:
        found += list(_terms("model", model, (models[model].rpm, models[model].tpm)))
        found += _parallel("model", model, models[model].parallel)
    return found


def _parallel(who: str, name: str, slots: object) -> list[Term]:
    if not isinstance(slots, int | float) or isinstance(slots, bool) or slots < 0:
        return []
    key = f"litellm:{PARALLEL}:{who}:{name[:500]}"
    # More than can be counted is as good as any.
    return [Term(key, units=int(min(slots, SLOTS_MAX)), is_parallel=True)]


def _terms(who: str, name: str, rates: tuple[object, object]) -> Iterator[Term]:
    for what, rate in zip((REQUESTS, TOKENS), rates, strict=True):
        if isinstance(rate, int | float) and not isinstance(rate, bool) and rate >= 0:
            # A name ends the key: whatever is in it, it is read as no other part.
            key = f"{_a_minute(int(rate))}:litellm:{what}:{who}:{name[:500]}"
            yield Term(key, units=int(rate), is_tokens=what == TOKENS)
