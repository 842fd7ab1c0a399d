"""The page at ``/``: one document without anything from outside."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def page() -> str:
    return files("litestage.serve").joinpath("page.html").read_text(encoding="utf-8")
