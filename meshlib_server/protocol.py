"""HTTP as uvicorn speaks it, except for how it answers what is no HTTP.

Rule: what never reaches the application is answered as the application answers: in JSON, and
without a word of it in the log more than once a minute.
"""

from __future__ import annotations

import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["JsonErrorsProtocol"]


class JsonErrorsProtocol(HttpToolsProtocol):
    """One connection, on which a request that cannot be parsed is a 400 like every other."""

    def send_400_response(self, msg: str) -> None:  # uvicorn calls it, so its name is uvicorn's
        """Answer `{"error": ...}` and close: where the next request begins is not known.

        Args:
            msg: one sentence for a human.
        """
        body = json.dumps({"error": msg}).encode()
        fields = [
            b"HTTP/1.1 400 Bad Request",
            *(name + b": " + value for name, value in self.server_state.default_headers),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join(fields) + b"\r\n\r\n" + body)
        self.transport.close()
