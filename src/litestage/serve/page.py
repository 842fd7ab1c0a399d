"""The page at ``/``: one document without anything from outside, and a policy that lets nothing else run in it."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

POLICY = (
    "default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


@cache
def page() -> tuple[str, dict[str, str]]:
    """The document, and the headers it is sent with."""
    folder = files("litestage.serve").joinpath("static")
    html, style, script = (
        folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")
    )
    headers = {
        "content-security-policy": POLICY.format(style=_hash(style), script=_hash(script)),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    return html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script), headers


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
