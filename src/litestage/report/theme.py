"""Colours and type of the charts: on a page they follow its style sheet, in a file they are fixed.

Hues are Okabe and Ito's, which colour-blind people tell apart; meaning never hangs on hue alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Theme:
    ink: str
    muted: str
    grid: str
    surface: str
    full: str
    plan: str
    attention: str
    ffn: str
    kept: str
    vermilion: str
    purple: str
    brown: str
    sky: str
    background: str
    font: str

    def config(self) -> dict[str, Any]:
        """Vega-Lite's config: quiet axes, no frame, the page's own letters."""
        return {
            "background": self.background,
            "font": self.font,
            "padding": 2,
            "view": {"stroke": None},
            "axis": {
                "domain": False,
                "ticks": False,
                "gridColor": self.grid,
                "labelColor": self.muted,
                "labelFontSize": 11,
                "labelPadding": 6,
                "titleColor": self.muted,
                "titleFontSize": 11,
                "titleFontWeight": 400,
                "titlePadding": 8,
            },
            "axisX": {"grid": False, "labelFlush": False},
            "title": {
                "anchor": "start",
                "color": self.muted,
                "fontSize": 12,
                "fontWeight": 500,
                "offset": 6,
                "subtitleColor": self.muted,
            },
        }


PAGE = Theme(
    **{field.name: f"var(--{field.name})" for field in fields(Theme) if field.name not in ("background", "font")},
    background="transparent",
    font="system-ui, sans-serif",
)
"""Every colour is a variable of the page's style sheet, so that light and dark are one drawing."""

PAPER = Theme(
    ink="#1a1a1a",
    muted="#555555",
    grid="#e6e6e6",
    surface="#ffffff",
    full="#7a7f87",
    plan="#0072b2",
    attention="#009e73",
    ffn="#e69f00",
    kept="#dcdee1",
    vermilion="#d55e00",
    purple="#cc79a7",
    brown="#8c6d31",
    sky="#56b4e9",
    background="#ffffff",
    font="Helvetica, Arial, Liberation Sans, sans-serif",
)
