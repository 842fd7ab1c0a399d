"""A cache around an engine: equal requests are decoded once, also across a kill and a second start."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from litestage.core import Completion, Engine, Event, Failed, Finished, LitestageError, NewText, NewToken, Request
from litestage.core.complaints import problem
from litestage.core.engine import EngineAround
from litestage.core.exits import Value
from litestage.core.plan import content_hash

TOGETHER = 64
"""Completions that are written to the file at once."""


class CachedEngine(EngineAround):
    """An engine that remembers its completions in a file (or ``:memory:``).

    Work upstream of a changed stage is reused by itself: what did not change is the same request. Completions are
    stored before `generate` returns, so a killed run loses at most what was in flight. Never time through a cache.
    """

    def __init__(self, engine: Engine, path: Path | str = ":memory:", conditions: str = "") -> None:
        """``conditions`` names what else shapes a completion besides the weights: dtype, device, versions."""
        super().__init__(engine)
        self.decoded = 0
        """Requests that the engine really ran."""
        self.answered = 0
        """Requests answered from the cache."""
        self._next_id = 0
        self._askers: dict[int, list[int]] = {}
        """Who waits for each request that the engine has."""
        self._streaming: set[int] = set()
        """Those of them who hear every token."""
        self._asked: dict[str, int] = {}
        self._keys: dict[int, str] = {}
        self._fresh: list[tuple[str, Completion]] = []
        """Completions that are not in the file yet."""
        self._events: list[Event] = []
        self._space, self._path = f"{engine.identity.fingerprint} {conditions}", path
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = sqlite3.connect(path)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("CREATE TABLE IF NOT EXISTS completions (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        except sqlite3.Error as error:
            raise self._unusable(str(error)) from None

    def add(self, request: Request, *, stream: bool = False) -> int:
        """See `litestage.core.Engine`; a request whose completion is known, or under way, is not decoded again."""
        self._next_id += 1
        id, key = self._next_id, self._key(request)
        if (known := self._find(key) or self._cut(request)) is not None:
            self.answered += 1
            self._events += _told(id, known, stream)
        elif key in self._asked and not stream:
            self._askers[self._asked[key]].append(id)
        else:
            asked = self.engine.add(request, stream=stream)
            self._streaming |= {id} if stream else set()
            self._askers[asked], self._asked[key], self._keys[asked] = [id], asked, key
        return id

    def cancel(self, id: int) -> None:
        """See `litestage.core.Engine`; what others asked for as well goes on."""
        self._events = [event for event in self._events if event.id != id]
        for asked, askers in list(self._askers.items()):
            if id in askers:
                self._streaming.discard(id)
                askers.remove(id)
                if not askers:
                    self.engine.cancel(asked)
                    self._forget(asked)
        if not self._askers:
            self._store()

    def work(self) -> list[Event]:
        """What is known at once; else a step of the engine, whose completions are stored before they are told."""
        events, self._events = self._events, []
        if not events and self._askers:
            for event in self.engine.step():
                if event.id in self._askers:
                    events += self._heard(event)
            if len(self._fresh) >= TOGETHER or not self._askers:
                self._store()
        return events

    def _heard(self, event: Event) -> list[Event]:
        """A step's event, for all who asked for the same."""
        if isinstance(event, Failed):
            askers = self._askers[event.id]
            self._forget(event.id)
            return [replace(event, id=id) for id in askers]
        if not isinstance(event, Finished):
            return [replace(event, id=id) for id in self._askers[event.id] if id in self._streaming]
        first, *others = self._askers[event.id]
        self._fresh.append((self._keys[event.id], event.completion))
        self.decoded += 1
        self._forget(event.id)
        return [Finished(first, event.completion), *(Finished(id, event.completion) for id in others)]

    def _forget(self, asked: int) -> None:
        self._asked.pop(self._keys.pop(asked), None)
        self._streaming.difference_update(self._askers.pop(asked))

    def _store(self) -> None:
        if not self._fresh:
            return
        rows = [(key, completion.model_dump_json()) for key, completion in self._fresh]
        try:
            with self._file:
                self._file.executemany("INSERT OR REPLACE INTO completions VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise LitestageError(
                f"Completions could not be kept ({error}). What was kept before is safe: free some space and run the "
                "same command again to go on."
            ) from None
        self._fresh = []

    def _key(self, request: Request) -> str:
        return content_hash([self._space, request.key()])

    def _cut(self, request: Request) -> Completion | None:
        """A completion with exit is the one without, up to where the rule ends it; None when that one is not known.

        Entropies are not stored.
        """
        rule = request.stage_plan.exit
        if rule is None or request.choices:
            return None
        patient = request.model_copy(update={"stage_plan": request.stage_plan.model_copy(update={"exit": None})})
        if rule.looks_at == "entropy" or rule.missing or (whole := self._find(self._key(patient))) is None:
            return None
        seen: Sequence[Value] = whole.confidences
        if rule.looks_at == "answer":
            seen = [rule.read(self.decode(whole.token_ids[: end + 1])) for end in range(len(whole.token_ids))]
        end = rule.first_exit(seen)
        if end is None or (whole.finish_reason == "eos" and end == len(whole.token_ids) - 1):
            return whole
        kept = whole.token_ids[:end]
        return Completion(
            token_ids=(*kept, self.eos_id),
            text=self.decode(kept),
            confidences=whole.confidences[: end + 1],
            finish_reason=rule.reason,
            counts=whole.counts.model_copy(update={"decoded": end}),
        )

    def _find(self, key: str) -> Completion | None:
        try:
            row = self._file.execute("SELECT value FROM completions WHERE key = ?", (key,)).fetchone()
            return Completion.model_validate_json(row[0]) if row else None
        except sqlite3.Error as error:  # of a damaged file the first pages may be whole
            raise self._unusable(str(error)) from None
        except ValidationError as error:
            raise self._unusable(f"a completion there: {problem(error, None, {})}") from None

    def _unusable(self, reason: str) -> LitestageError:
        return LitestageError(
            f"{self._path} cannot be used to keep completions ({reason}). Delete it if it is damaged, free some "
            "space, or choose another place with --out, and run the command again."
        )

    def close(self) -> None:
        self._file.close()


def _told(id: int, completion: Completion, stream: bool) -> list[Event]:
    """All that is told of a completion."""
    finished = Finished(id, completion)
    if not stream:
        return [finished]
    text = [NewText(id, completion.text)] if completion.text else []
    return [*(NewToken(id, token) for token in completion.token_ids), *text, finished]
