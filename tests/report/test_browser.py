"""The page in a real browser: charts drawn, nothing logged, nothing wider than the screen."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from litestage.report import plan
from litestage.report.page import to_html
from litestage.results import PlanResult

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=10000",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  const wide = [...document.querySelectorAll("main *")].filter((element) =>
    !element.closest(".sheet, .hidden") && element.getBoundingClientRect().right > innerWidth + 0.5);
  parent.postMessage(JSON.stringify({
    width: innerWidth,
    page: document.documentElement.scrollWidth,
    wide: wide.map((element) => element.outerHTML.slice(0, 80)),
    drawn: [...document.querySelectorAll(".chart")].filter((chart) => chart.querySelector("svg path")).length,
    loaded: performance.getEntriesByType("resource").length,
    background: getComputedStyle(document.body).backgroundColor,
    label: getComputedStyle(document.querySelector(".chart .role-axis-label text")).fill,
  }), "*");
}, 3000));
</script>"""
FRAME = """<!doctype html><iframe src="report.html" width="{width}" height="900"></iframe><script>
addEventListener("message", (event) => {{ document.documentElement.dataset.seen = event.data; }});
</script>"""
"""A browser's window cannot be as narrow as a phone; a frame in it can."""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here")


@pytest.fixture(scope="module")
def page(results: PlanResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(to_html(plan.page(results)) + PROBE, encoding="utf-8")
    return path


def visit(page: Path, profile: Path, width: int, *flags: str) -> tuple[dict[str, Any], list[str]]:
    """What the probe saw, and what the console said."""
    frame = page.with_name(f"{width}.html")
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    where = ("--window-size=1400,1000", f"--user-data-dir={profile}", "--dump-dom", frame.as_uri())
    done = subprocess.run([str(BROWSER), *FLAGS, *flags, *where], capture_output=True, text=True, timeout=120)
    seen = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert seen, done.stderr
    logged = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(seen[1])), logged


@pytest.mark.parametrize("width", [1280, 768, 375])
def test_charts_are_drawn_and_nothing_overflows(page: Path, tmp_path: Path, width: int) -> None:
    seen, logged = visit(page, tmp_path, width)
    assert not logged
    assert seen["width"] == width
    assert seen["drawn"] == 10
    assert seen["loaded"] == 0
    assert seen["wide"] == []
    assert seen["page"] <= width


def test_dark_and_light_differ_in_the_charts_as_well(page: Path, tmp_path: Path) -> None:
    light, _ = visit(page, tmp_path / "light", 1280, "--blink-settings=preferredColorScheme=1")
    dark, _ = visit(page, tmp_path / "dark", 1280, "--blink-settings=preferredColorScheme=0")
    assert brightness(light["background"]) > 200 > brightness(light["label"])
    assert brightness(dark["background"]) < 60 < brightness(dark["label"])


def brightness(colour: str) -> float:
    red, green, blue = (int(part) for part in re.findall(r"\d+", colour)[:3])
    return 0.299 * red + 0.587 * green + 0.114 * blue
