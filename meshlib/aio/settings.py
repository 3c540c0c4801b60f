"""Checks of settings, as attrs validators that raise what a caller of ours expects."""

from __future__ import annotations

from typing import Any

from meshlib.errors import ConfigError

__all__ = ["check_not_negative", "check_positive"]


def check_positive(_instance: Any, attribute: Any, value: float) -> None:
    """Check that a setting is over 0.

    Raises:
        ConfigError: it is not.
    """
    if not value > 0:
        raise ConfigError(f"{attribute.name} must be over 0, got {value}")


def check_not_negative(_instance: Any, attribute: Any, value: float) -> None:
    """Check that a setting is 0 or more.

    Raises:
        ConfigError: it is not.
    """
    if not value >= 0:
        raise ConfigError(f"{attribute.name} must be 0 or more, got {value}")
