"""The engine: groups requests by how they decode, keeps shared prefixes, runs batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from litestage.core import (
    Chat,
    Completion,
    ModelIdentity,
    OnToken,
    OptionError,
    PlanError,
    Request,
    Sampling,
    StagePlan,
    SubLayer,
    TokenIds,
)
from litestage.core.rows import rows_to_admit
from litestage.engine.batch import Batch, OnLogits, OnPass, prefill
from litestage.engine.detokeniser import Detokeniser
from litestage.engine.not_finite import not_finite
from litestage.engine.prefixes import Prefix, PrefixStore, waves
from litestage.engine.row import Row
from litestage.engine.sampling import uniforms_of
from litestage.engine.steps import FixedSteps
from litestage.models import Cache, LoadedModel
from litestage.models.decoder import Observer, Stand

Visit = Callable[[SubLayer, Float[Tensor, "T D"], Float[Tensor, "T D"], int], None]
"""Called with a sub-layer, the residual stream before and after it, and how many prompts share these tokens."""

ENCODED = 1 << 11
"""Texts whose tokens are remembered: the systems of a comparison ask the same questions over and over."""


class TorchEngine:
    """Completions from a loaded model, in fp32 or bf16, on a CPU or GPU.

    ``batch_size`` is the most rows that decode together; memory is the weights, a cache of that many rows as long as
    the longest request, and the prompt beginnings of one call, of which ``prefix_tokens`` are kept for the next.
    ``fixed_steps`` decodes by steps of fixed shapes, captured on CUDA, where it is the default.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        batch_size: int = 32,
        prefix_tokens: int = 8192,
        stands: Mapping[str, Stand] | None = None,
        fixed_steps: bool | None = None,
    ) -> None:
        if batch_size < 1:
            raise OptionError(f"--batch-size {batch_size}: at least one row must decode. Give 1 or more.")
        self.model, self.batch_size = model, batch_size
        self.stands: dict[str, Stand] = dict(stands or {})
        """What stands in for skipped sub-layers, by the content hash that stage plans name."""
        self.on_pass: OnPass | None = None
        """Called with every forward that is run, for those who count."""
        self.on_logits: OnLogits | None = None
        """Called with what decides each generated token, for those who want more of it than its confidence."""
        self._store = PrefixStore(prefix_tokens)
        self._cache: Cache | None = None
        self._by_fixed_steps = model.decoder.device.type == "cuda" if fixed_steps is None else fixed_steps
        self._fixed: FixedSteps | None = None
        self.detokeniser = Detokeniser(model.tokenizer)
        self._encode = lru_cache(maxsize=ENCODED)(
            partial(_encoded, model)
        )  # of a method it would keep the engine alive

    @property
    def identity(self) -> ModelIdentity:
        return self.model.identity

    @property
    def cache_bytes(self) -> int:
        """Of the KV cache and the kept prefixes."""
        return (0 if self._cache is None else self._cache.data.nbytes) + self._store.nbytes

    @property
    def max_context(self) -> int:
        """Most tokens of a prompt and its completion together."""
        return self.model.decoder.shape.max_positions

    def encode(self, text: str, chat: Chat | None = None) -> TokenIds:
        """Token ids of a prompt; with ``chat`` as a user's turn in the model's chat template."""
        return self._encode(text, chat)

    @property
    def eos_id(self) -> int:
        """The token that ends a text, and takes the place of one that breaks the exit rule."""
        return self.model.eos_ids[0]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens."""
        return self.detokeniser.text(token_ids)

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[Request], prefixes: Sequence[TokenIds] = (), on_token: OnToken | None = None
    ) -> list[Completion]:
        """Completions in the order of the requests (see `litestage.core.Engine`)."""
        rows = [self._row(i, request) for i, request in enumerate(requests)]
        self._reserve(rows, prefixes)
        self._keep(prefixes)
        for row in rows:
            row.take(self._store.longest(row.request.prompt_ids))
        for (stage_plan, sampling), group in _by_decoding(rows).items():
            self._batch(stage_plan, sampling, on_token).run(group)
        self._store.trim()
        return [row.completion(self._text(row)) for row in rows]

    @torch.inference_mode()
    def scan(self, prompts: Sequence[TokenIds], prefixes: Sequence[TokenIds], visit: Visit) -> None:
        """Prefill prompts at full depth and show every sub-layer's work on their tokens, for rankings and fits.

        Tokens that several prompts share through ``prefixes`` are shown once, with the number of prompts as weight.
        """
        self.forget()
        self._reserve([], [max([*prompts, *prefixes], key=len, default=())])
        shown: set[TokenIds] = set()
        for prompt, count in Counter(prompts).items():
            for prefix in sorted({p for p in prefixes if p == prompt[: len(p)]}, key=len):
                if prefix not in self._store:
                    weight = 0 if prefix in shown else sum(other[: len(prefix)] == prefix for other in prompts)
                    self._keep_batch([prefix], _weighted(visit, weight))
                    shown.add(prefix)
            if prompt not in self._store:
                self._prefill([prompt], [self._store.longest(prompt)], _weighted(visit, count))
            self._store.trim()
        self.forget()

    def forget(self, but: Sequence[TokenIds] = ()) -> None:
        """Drop every kept prefix except ``but``."""
        self._store.clear(but)

    def fixed_steps(self, cache: Cache) -> FixedSteps | None:
        """Steps over a cache, if this engine decodes by such."""
        return FixedSteps(self.model.decoder, cache) if self._by_fixed_steps else None

    def room(self, prompt: TokenIds) -> int:
        """Tokens that the context leaves behind a prompt; raises `OptionError` where there is none."""
        room = self.max_context - len(prompt)
        if not prompt or room < 1:
            raise OptionError(
                f"A prompt has {len(prompt)} tokens; {self.identity.id} takes 1 to {self.max_context - 1}, "
                "with room for one more. Shorten the question, or use fewer worked examples (--shots)."
            )
        return room

    def _row(self, index: int, request: Request) -> Row:
        limit = min(request.max_new_tokens, self.room(request.prompt_ids))
        request.stage_plan.schedule.check_fits(self.identity.num_blocks)
        uniforms = None if request.sampling.is_greedy else uniforms_of(request.seed, limit)
        return Row(index, request, limit, uniforms)

    def _reserve(self, rows: Sequence[Row], prefixes: Sequence[TokenIds]) -> None:
        """Have a cache for the longest row; the last slot of each is for padding."""
        lengths = [len(row.request.prompt_ids) + row.max_new_tokens for row in rows] + [len(p) + 1 for p in prefixes]
        slots = -(-max(lengths, default=1) // 64) * 64
        count = min(self.batch_size, max(len(rows), len(prefixes), 1))
        if self._cache is None or self._cache.rows < count or self._cache.slots < slots:
            grown = (0, 0) if self._cache is None else (self._cache.rows, self._cache.slots)
            self._cache = self._fixed = None
            self._cache = self.model.decoder.new_cache(max(count, grown[0]), max(slots, grown[1]))
            self._fixed = self.fixed_steps(self._cache)

    def _keep(self, prefixes: Sequence[TokenIds]) -> None:
        """Prefill the prefixes that are not held yet, as many at a time as the cache has rows."""
        for wave in waves([p for p in prefixes if p and p not in self._store]):
            while wave:
                count = rows_to_admit(0, [self._store.missing(tokens) for tokens in wave], self.batch_size)
                self._keep_batch(wave[:count])
                wave = wave[count:]

    def _keep_batch(self, prefixes: list[TokenIds], observe: Observer | None = None) -> None:
        parents = [self._store.longest(tokens) for tokens in prefixes]
        logits = self._prefill(prefixes, parents, observe)
        assert self._cache is not None
        for row, (tokens, parent) in enumerate(zip(prefixes, parents, strict=True)):
            start = len(parent.tokens) if parent else 0
            content = self._cache.read(row, start, len(tokens))
            self._store.add(Prefix(tokens, parent, content, logits[row].clone(), len(tokens) - start))

    def _prefill(
        self, prompts: list[TokenIds], prefixes: list[Prefix | None], observe: Observer | None = None
    ) -> Float[Tensor, "B V"]:
        assert self._cache is not None
        return prefill(self.model.decoder, self._cache, 0, prompts, prefixes, self.on_pass, observe)

    def _batch(self, stage_plan: StagePlan, sampling: Sampling, on_token: OnToken | None) -> Batch:
        assert self._cache is not None
        return Batch(
            self.model.decoder,
            self._cache,
            self.model.eos_ids,
            stage_plan,
            sampling,
            self._stand(stage_plan),
            self._stops,
            self.batch_size,
            lambda row: not_finite(self.model, (*row.request.prompt_ids, *row.tokens)),
            on_token,
            self.on_pass,
            on_logits=self.on_logits,
            fixed=self._fixed,
        )

    def _stand(self, stage_plan: StagePlan) -> Stand:
        content = stage_plan.compensation.content
        if content is None:
            return {}
        if content not in self.stands:
            raise PlanError(
                f"The plan's {stage_plan.compensation.kind} compensation ({content[:12]}) is not loaded: its numbers "
                "lie in the plan folder. Load the plan from its whole folder."
            )
        return self.stands[content]

    def _stops(self, row: Row) -> bool:
        return self.detokeniser.stops(row.tokens, row.request.stop)

    def _text(self, row: Row) -> str:
        if row.reason == "stop":
            return self.detokeniser.until(row.tokens, row.request.stop)
        return self.decode(row.tokens[:-1] if row.reason in ("eos", "low_confidence") else row.tokens)


def _encoded(model: LoadedModel, text: str, chat: Chat | None) -> TokenIds:
    return model.prompts.encode([text], chat)[0]


def _weighted(visit: Visit, weight: int) -> Observer | None:
    """Show a single row's tokens with a weight; nothing to show at weight 0."""
    return (lambda layer, before, after: visit(layer, before[0], after[0], weight)) if weight else None


def _by_decoding(rows: Sequence[Row]) -> dict[tuple[StagePlan, Sampling], list[Row]]:
    """Rows that one batch can hold: the same stage plan and sampling, in their order."""
    groups: dict[tuple[StagePlan, Sampling], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.request.stage_plan, row.request.sampling), []).append(row)
    return groups
