"""The page in a real browser, served for real: it asks, both sides answer, nothing is logged or wider than a phone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browser import BROWSER, browser
from serving import Served, served

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here")


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(1300, False), (390, True)])
def test_it_asks_and_both_sides_answer(server: Served, tmp_path: Path, width: int, dark: bool) -> None:
    """What it shows is what the server answers; nothing is wider than the screen."""
    with browser(tmp_path) as tab:
        tab.look(width, 900, dark)
        tab.call("Page.navigate", url=f"{server.url}/#ask")
        tab.wait_for("document.documentElement.dataset.done === 'yes'")
        sides = tab.evaluate("[...document.querySelectorAll('.side')].map((side) => side.innerText)")
        bar = tab.evaluate("[...document.querySelectorAll('.chosen .track i')].map((bar) => bar.style.width)")
        drawn = tab.evaluate(f"[...document.querySelectorAll('canvas')].map({PAINTED})")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
        assert tab.said == []
    example = server.http.get("/examples").json()[0]
    asked = example["question"] + "".join(f" ({'ABCD'[i]}) {text}" for i, text in enumerate(example["choices"]))
    traces = []
    for side, model in zip(sides, ("everyday:full", "everyday:fast"), strict=True):
        told: Any = server.ask(asked, model=model, litestage={"trace": True}).json()["litestage"]
        (trace,) = told["traces"]
        traces.append(trace)
        for stage in trace["stages"]:
            for completion in stage["completions"]:
                assert completion["text"].strip() in side
        written = sum(len(completion["token_ids"]) for stage in trace["stages"] for completion in stage["completions"])
        assert str(written) in side.split()
    assert len(bar) == sum(trace["answer"] is not None for trace in traces)
    assert set(bar) <= {"100%"}
    assert all(drawn)
    assert len(drawn) == sum(len(trace["stages"]) for trace in traces)


PAINTED = "(map) => map.getContext('2d').getImageData(0, 0, map.width, map.height).data.some((part) => part)"
"""Whether anything is painted on a canvas."""


@needs_browser
def test_it_is_used_by_keyboard_and_stopped(server: Served, tmp_path: Path) -> None:
    """E takes another example, Control and Enter ask, Escape stops, and the server's rows are free."""
    aborted = server.metric("requests_aborted_total")
    with browser(tmp_path) as tab:
        tab.call("Page.navigate", url=server.url)
        tab.wait_for("document.getElementById('question').value !== ''")
        first = tab.evaluate("document.getElementById('question').value")
        tab.press("e")
        assert tab.evaluate("document.getElementById('question').value") != first
        tab.evaluate("document.getElementById('votes').value = '10'")
        tab.press("Enter", modifiers=2)
        tab.wait_for("document.querySelectorAll('.stage').length > 0")
        tab.press("Escape")
        tab.wait_for("!document.getElementById('run').hidden")
        assert tab.said == []
    server.settled(aborted + 1)
    assert server.metric("requests_aborted_total") == aborted + 1


def test_it_needs_nothing_from_outside_and_lets_nothing_in(server: Served) -> None:
    answer = server.http.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r'(?:src|href)="(?!data:)', answer.text)
    assert "/*S" not in answer.text


def test_examples_are_the_embedded_sets_own(server: Served) -> None:
    examples = server.http.get("/examples").json()
    assert len(examples) > 10
    assert all(set(one) == {"question", "choices"} for one in examples)
    assert json.dumps(examples).isascii()


def test_it_can_be_left_out() -> None:
    with served(ready=False, no_page=True) as bare:
        assert bare.http.get("/").status_code == 404
