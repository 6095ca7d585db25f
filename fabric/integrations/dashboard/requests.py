"""Read a request, and decide who may be answered: only programs of this machine that know the token.

Host      names this machine, whatever the port (it may be forwarded): a page of another site whose name was made to
          point here (DNS rebinding) sends that name
token     in the query, compared in constant time
"""

import asyncio
import hmac
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

HEAD_BYTES = 8192  # the most that a request may have
_HOSTS = ("127.0.0.1", "localhost")
_HEADERS = (
    "Cache-Control: no-store",
    "Referrer-Policy: no-referrer",
    "X-Content-Type-Options: nosniff",
    "X-Frame-Options: DENY",
    "Cross-Origin-Resource-Policy: same-origin",
    "Connection: close",
)


@dataclass(frozen=True, slots=True)
class Request:
    """What is looked at of a request."""

    method: str
    path: str
    token: str
    host: str

    def refusal(self, token: str) -> HTTPStatus | None:
        """Return why this may not be answered; None: it may."""
        allowed = hmac.compare_digest(self.token.encode(), token.encode())
        if not allowed or self.host not in _HOSTS:
            return HTTPStatus.FORBIDDEN
        return None if self.method == "GET" else HTTPStatus.METHOD_NOT_ALLOWED


async def read_request(reader: asyncio.StreamReader) -> Request:
    """Read the head of a request.

    Raises:
        ValueError: it is none. LimitOverrunError: it is too long. IncompleteReadError: the client went away.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    method, target, protocol = line.split(" ")
    if not protocol.startswith("HTTP/1."):
        raise ValueError(f"not a request of HTTP/1: {line!r}")
    hosts = [value.strip() for name, _, value in (one.partition(":") for one in lines) if name.lower() == "host"]
    host = hosts[0].rpartition(":")[0] or hosts[0] if len(hosts) == 1 else ""
    parts = urlsplit(target)
    return Request(method, parts.path, parse_qs(parts.query).get("token", [""])[-1], host.lower())


def response_head(status: HTTPStatus, content_type: str, *headers: str, length: int | None = None) -> bytes:
    """Return the head of a response; without a length its body ends with the connection."""
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", f"Content-Type: {content_type}", *_HEADERS, *headers]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def response(status: HTTPStatus, content_type: str, body: bytes, *headers: str) -> bytes:
    """Return a whole response."""
    return response_head(status, content_type, *headers, length=len(body)) + body
