"""Two keys with limits of their own, in the place of LiteLLM's database of keys."""

from fastapi import Request
from litellm.proxy._types import UserAPIKeyAuth  # type: ignore[import-not-found,unused-ignore]

LIMITS = {"sk-chat": {"rpm_limit": 20}, "sk-slow": {"max_parallel_requests": 4}}


async def authenticate(_request: Request, api_key: str) -> UserAPIKeyAuth:
    """Tell LiteLLM what a key may do; any other is refused."""
    return UserAPIKeyAuth(api_key=api_key, **LIMITS[api_key])
