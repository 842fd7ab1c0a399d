"""Results of version 1, where a method's name alone told what it belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

WITHOUT_EXIT = {"litestage": "litestage_no_exit", "litestage_uniform_exit": "litestage_uniform"}
"""By method: what skips the same and ends no text."""


def relations(method: dict[str, Any], others: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Of a method of a comparison: the fields that its name and the words of its request stood for."""
    names = {other["name"] for other in others}
    own, _, rest = method["name"].partition("-")
    without = f"{WITHOUT_EXIT[own]}-{rest}" if own in WITHOUT_EXIT else None
    return {
        "amount": _amount(method["requested"]),
        "without_exit": without if without in names else None,
        "control_of": rest if own == "token_cap" else None,
    }


def _amount(requested: str) -> dict[str, Any] | None:
    """``4 blocks`` or ``8 sub-layers``; nothing for what is no amount."""
    number, _, unit = requested.partition(" ")
    unit = unit.removesuffix("s")
    return {"number": int(number), "unit": unit} if number.isdecimal() and unit in ("block", "sub-layer") else None
