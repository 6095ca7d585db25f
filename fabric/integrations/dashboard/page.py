"""Put the page together from the files beside this one: one document, which loads nothing else."""

import secrets
from functools import cache
from importlib.resources import files

_STYLES = ("page.css",)
_SCRIPTS = ("units.js", "charts.js", "tables.js", "page.js")


def page() -> tuple[bytes, str]:
    """Return the document, and the header that lets run in it what is ours and nothing else."""
    nonce = secrets.token_urlsafe(16)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src 'nonce-{nonce}'",
            f"style-src 'nonce-{nonce}'",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )
    return _document().replace("NONCE", nonce).encode(), f"Content-Security-Policy: {policy}"


@cache
def _document() -> str:
    styles = "\n".join(map(_read, _STYLES))
    scripts = "\n".join(map(_read, _SCRIPTS))
    return _read("page.html").replace("/* STYLES */", styles).replace("/* SCRIPTS */", scripts)


def _read(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
