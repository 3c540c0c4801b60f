"""What can go wrong with a call.

ClientError
    UnreachableError   nobody answered, or no server of this kind
    ApiError           the server said no, and why
"""

from __future__ import annotations

__all__ = ["ApiError", "ClientError", "UnreachableError"]


class ClientError(Exception):
    """All of them."""


class UnreachableError(ClientError):
    """Nobody answered, or what answered is no such server. What was asked may have been done."""


class ApiError(ClientError):
    """The server said no. Nothing was changed.

    Args:
        message: the server's sentence.
        status: the status of its answer.
        code: its word for what went wrong: see the document of the API.
        retry_after_s: when to come back, in seconds; None when it does not say.
    """

    def __init__(
        self, message: str, *, status: int, code: str, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
