"""A cache around an engine: equal requests are decoded once, also across a kill and a second start."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from litestage.core import Completion, Engine, LitestageError, OnToken, Request, TokenIds
from litestage.core.engine import EngineAround, beginning
from litestage.core.plan import content_hash
from litestage.core.wording import problem


class CachedEngine(EngineAround):
    """An engine that remembers its completions in a file (or ``:memory:``).

    Work upstream of a changed stage is reused by itself: what did not change is the same request. A completion is
    stored before `generate` returns, so a killed run loses at most what was in flight. Never time through a cache.
    """

    def __init__(self, engine: Engine, path: Path | str = ":memory:", conditions: str = "") -> None:
        """``conditions`` names what else shapes a completion besides the weights: dtype, device, versions."""
        super().__init__(engine)
        self.decoded = 0
        """Requests that the engine really ran."""
        self.answered = 0
        """Requests answered from the cache."""
        self._space, self._path = f"{engine.identity.fingerprint} {conditions}", path
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = sqlite3.connect(path)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("CREATE TABLE IF NOT EXISTS completions (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        except sqlite3.Error as error:
            raise self._unusable(str(error)) from None

    def generate(
        self, requests: Sequence[Request], prefixes: Sequence[TokenIds] = (), on_token: OnToken | None = None
    ) -> list[Completion]:
        """Completions in the order of the requests; only unknown ones reach the engine."""
        keys = [self._key(request) for request in requests]
        known = {key: self._find(key) or self._cut(request) for key, request in zip(keys, requests, strict=True)}
        missing = {key: request for key, request in zip(keys, requests, strict=True) if known[key] is None}
        self.answered += len(requests) - len(missing)
        if on_token is not None:
            self._replay(keys, known, on_token)
        if missing:
            users = [[i for i, key in enumerate(keys) if key == asked] for asked in missing]
            known.update(self._generate(missing, prefixes, on_token and _to_all(on_token, users)))
        return [completion for key in keys if (completion := known[key]) is not None]

    def _replay(self, keys: Sequence[str], known: Mapping[str, Completion | None], on_token: OnToken) -> None:
        """Tell the tokens of the completions that are known."""
        for index, key in enumerate(keys):
            if (completion := known[key]) is not None:
                for token in completion.token_ids:
                    on_token(index, token)

    def _generate(
        self, missing: dict[str, Request], prefixes: Sequence[TokenIds], on_token: OnToken | None
    ) -> dict[str, Completion]:
        requests = list(missing.values())
        completions = self.engine.generate(requests, beginning(requests, prefixes), on_token)
        fresh = dict(zip(missing, completions, strict=True))
        self.decoded += len(fresh)
        rows = [(key, completion.model_dump_json()) for key, completion in fresh.items()]
        try:
            with self._file:
                self._file.executemany("INSERT OR REPLACE INTO completions VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise LitestageError(
                f"Completions could not be kept ({error}). What was kept before is safe: free some space and run the "
                "same command again to go on."
            ) from None
        return fresh

    def _key(self, request: Request) -> str:
        return content_hash([self._space, request.key()])

    def _cut(self, request: Request) -> Completion | None:
        """A completion with exit is the one without, up to where the rule ends it; None when that one is not known."""
        rule = request.stage_plan.exit
        if rule is None:
            return None
        patient = request.model_copy(update={"stage_plan": request.stage_plan.model_copy(update={"exit": None})})
        if (whole := self._find(self._key(patient))) is None:
            return None
        end = rule.first_exit(whole.confidences)
        if end is None or (whole.finish_reason == "eos" and end == len(whole.token_ids) - 1):
            return whole
        kept = whole.token_ids[:end]
        return Completion(
            token_ids=(*kept, self.eos_id),
            text=self.decode(kept),
            confidences=whole.confidences[: end + 1],
            finish_reason="low_confidence",
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


def _to_all(on_token: OnToken, users: Sequence[Sequence[int]]) -> OnToken:
    """Tell a token to every request that asked for the same."""

    def tell(asked: int, token: int) -> None:
        for index in users[asked]:
            on_token(index, token)

    return tell
