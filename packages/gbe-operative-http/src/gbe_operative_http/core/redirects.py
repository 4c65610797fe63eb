"""What a redirect changes of a request (RFC 9110, 15.4; the Fetch standard, "HTTP-redirect fetch")."""

from __future__ import annotations

STATUSES = frozenset({301, 302, 303, 307, 308})

HARMLESS = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "content-type",
        "idempotency-key",
        "range",
        "user-agent",
    }
)
"""The headers that another origin gets to see. Any other may be a credential, whatever its name."""

ABOUT_THE_BODY = ("content-", "transfer-")

Origin = tuple[str, str, int]
"""Scheme, host, port."""

_DEFAULT_PORTS = {"http": 80, "https": 443}

Headers = tuple[tuple[str, str], ...]


def method_after(status: int, method: str) -> str:
    """How the next request is made. Where the method changes, the body is left behind."""
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        return "GET"
    return method


def headers_after(headers: Headers, old: Origin, new: Origin, keep_body: bool) -> Headers:
    """The headers of the next request."""
    kept = headers if keep_body else tuple(h for h in headers if not h[0].lower().startswith(ABOUT_THE_BODY))
    return kept if same_origin(old, new) else tuple(h for h in kept if h[0].lower() in HARMLESS)


def same_origin(old: Origin, new: Origin) -> bool:
    """Whether both are one service; a change from http to https, on the usual ports, is none."""
    if old == new:
        return True
    upgrade = (old[0], new[0]) == ("http", "https") and old[1] == new[1]
    return upgrade and old[2] == _DEFAULT_PORTS["http"] and new[2] == _DEFAULT_PORTS["https"]
