"""Which limits a call is under, and the keys that they are counted by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import frozen

__all__ = ["ModelTerms", "Term", "terms_of"]

REQUESTS: Final = "requests"
TOKENS: Final = "tokens"

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
    """

    rpm: int | None = None
    tpm: int | None = None


@frozen
class Term:
    """One limit that a call is under.

    Args:
        policy: the limit, such as `20/minute`; 0 of them let none pass.
        key: what it is counted by: the limit, what is counted, who, and their name.
        is_tokens: whether tokens are counted, and not requests.
    """

    policy: str
    key: str
    is_tokens: bool

    @property
    def per_minute(self) -> int:
        """Units of it."""
        return int(self.policy.partition("/")[0])


def terms_of(caller: Any, model: str, models: Mapping[str, ModelTerms]) -> list[Term]:
    """Return the limits that a call is under.

    Args:
        caller: LiteLLM's record of the key, with its limits and those of its user and team.
        model: the model that is asked for.
        models: what models admit, by name.
    """
    found = []
    for who, attribute, rpm, tpm in _HOLDERS:
        name = getattr(caller, attribute, None)
        if name:
            rates = (getattr(caller, rpm, None), getattr(caller, tpm, None))
            found += list(_terms(who, str(name), rates))
    if model in models:
        found += list(_terms("model", model, (models[model].rpm, models[model].tpm)))
    return found


def _terms(who: str, name: str, rates: tuple[object, object]) -> Iterator[Term]:
    for what, rate in zip((REQUESTS, TOKENS), rates, strict=True):
        if isinstance(rate, int | float) and not isinstance(rate, bool) and rate >= 0:
            policy = f"{int(rate)}/minute"
            # A name ends the key: whatever is in it, it is read as no other part.
            yield Term(policy, f"{policy}:litellm:{what}:{who}:{name[:500]}", what == TOKENS)
