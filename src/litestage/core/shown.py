"""How a value shows itself in a notebook, without its room knowing of drawing."""

from __future__ import annotations

from importlib import import_module


class Shown:
    """A value that a notebook shows as the command line does; the drawing is found when it is asked for."""

    def _shown(self) -> tuple[object, ...]:
        """What is drawn, one below the other."""
        return (self,)

    def _repr_html_(self) -> str:
        return str(import_module("litestage.report.notebook").html(self._shown()))
