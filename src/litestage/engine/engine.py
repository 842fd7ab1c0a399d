"""The engine: requests come and go, and every step is one forward for all of them that can use it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import accumulate
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from litestage.core import (
    Chat,
    Compensation,
    Event,
    Failed,
    Finished,
    ModelIdentity,
    NewText,
    NewToken,
    OptionError,
    PlanError,
    Prefill,
    Request,
    SubLayer,
    TokenIds,
)
from litestage.core.choices import allowed, forced
from litestage.core.drafts import Drafter, as_tokens
from litestage.core.engine import Stepping
from litestage.core.exits import Value
from litestage.core.request import EXITS
from litestage.core.rows import BEGINNING, rows_to_admit, shared_beginnings, shared_lengths
from litestage.engine.batch import Batch, Decided, Due, OnLogits, OnPass, prefill
from litestage.engine.detokeniser import Detokeniser, TextStream
from litestage.engine.not_finite import not_finite
from litestage.engine.row import Generation
from litestage.engine.sampling import decide, uniforms_of
from litestage.engine.steps import FixedSteps
from litestage.engine.tree import Found, TokenTree
from litestage.models import Cache, LoadedModel
from litestage.models.decoder import CompensationWeights, Observer
from litestage.models.logits import entropy_bits

Visit = Callable[[SubLayer, Float[Tensor, "T D"], Float[Tensor, "T D"], int], None]
"""Called with a sub-layer, the residual stream before and after it, and how many prompts share these tokens."""

ENCODED = 1 << 11
"""Texts whose tokens are remembered: the systems of a comparison ask the same questions over and over."""
ROW_TOKENS = 1024
"""Tokens that the cache has for each row that decodes, unless it is said how many it has in all."""
KEPT_TOKENS = 8192
"""Tokens that are kept for later requests while nobody asks."""
SLOTS = 512
"""Tokens that a row of the cache holds at first: rows are made longer, and fewer, for longer requests."""


class TorchEngine(Stepping):
    """Completions from a loaded model, in fp32 or bf16, on a CPU or GPU.

    ``batch_size`` is the most rows that decode together. Memory is the weights and a cache of ``cache_tokens``; of what
    it holds, ``kept_tokens`` are kept while nobody asks. Requests that begin alike have that computed once, unless
    ``share`` is false. ``fixed_steps`` decodes by steps of fixed shapes, captured on CUDA, where it is the default.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        batch_size: int = 32,
        cache_tokens: int | None = None,
        kept_tokens: int = KEPT_TOKENS,
        stands: Mapping[str, CompensationWeights] | None = None,
        fixed_steps: bool | None = None,
        share: bool = True,
    ) -> None:
        if batch_size < 1:
            raise OptionError(f"--batch-size {batch_size}: at least one row must decode. Give 1 or more.")
        self.model, self.batch_size = model, batch_size
        self.stands: dict[str, CompensationWeights] = dict(stands or {})
        """What stands in for skipped sub-layers, by the content hash that stage plans name."""
        self.on_pass: OnPass | None = None
        """Called with every forward that is run, for those who count."""
        self.on_logits: OnLogits | None = None
        """Called with what decides each generated token, for those who want more of it than its confidence.

        Nothing is drafted for them: they hear of tokens one by one.
        """
        self.drafter: Drafter | None = None
        """Guesses what follows the texts of requests that come, so that one forward decides several tokens of a row."""
        self.detokeniser = Detokeniser(model.tokenizer)
        self._by_fixed_steps = model.decoder.device.type == "cuda" if fixed_steps is None else fixed_steps
        self._share, self._kept_tokens = share, kept_tokens
        positions = model.decoder.shape.max_positions
        least = max(batch_size * ROW_TOKENS + KEPT_TOKENS, positions * (1 + self._by_fixed_steps))
        self._cache_tokens = cache_tokens or least
        self._made: tuple[Batch, TokenTree] | None = None
        """When the first request comes."""
        self._next_id = 0
        self._arrived: list[Generation] = []
        self._waiting: list[Generation] = []
        """In the order in which they enter."""
        self._too_long = False
        """Whether a request waits for longer rows, and those for steps under way or rows in use."""
        self.chunk: int | None = None
        """While rows decode, prompts are prefilled so many tokens at a time, and a decode step behind each; whole
        without a number, which holds up those rows for as long as the prompts are."""
        self._chunked = False
        """Whether the last forward was such a chunk."""
        self._wave: list[TokenIds] = []
        """Beginnings that were prefilled last."""
        self._events: list[Event] = []
        # Of methods they would keep the engine alive.
        self._encode = lru_cache(maxsize=ENCODED)(partial(_encoded, model))
        self._continue = lru_cache(maxsize=ENCODED)(partial(_continued, model))

    @property
    def identity(self) -> ModelIdentity:
        return self.model.identity

    @property
    def cache_bytes(self) -> int:
        """Of the KV cache, once there is one."""
        return 0 if self._made is None else self._made[1].cache.nbytes

    @property
    def free_rows(self) -> int:
        """Rows of the cache that no request uses."""
        return self._ready()[1].free

    @property
    def steps(self) -> FixedSteps | None:
        """The steps of fixed shapes, if it decodes by such."""
        return self._ready()[0].fixed

    @property
    def max_context(self) -> int:
        """Most tokens of a prompt and its completion together."""
        return min(self.model.decoder.shape.max_positions, self._cache_tokens // (1 + self._by_fixed_steps))

    @property
    def keeps_written(self) -> bool:
        """Where the keys of a token are the same to the last bit, whether it was written or prefilled."""
        return self._share and self.model.decoder.is_exact

    def encode(self, text: str, chat: Chat | None = None) -> TokenIds:
        """Token ids of a prompt; with ``chat`` as a user's turn in the model's chat template."""
        return self._encode(text, chat)

    def continuations(self, prompt: str, texts: Sequence[str], chat: Chat | None = None) -> tuple[TokenIds, ...]:
        """See `litestage.core.Engine`: as training teaches a text behind its prompt."""
        return self._continue(prompt, tuple(texts), chat)

    @property
    def eos_id(self) -> int:
        """The token that ends a text, and takes the place of one that breaks the exit rule."""
        return self.model.eos_ids[0]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens."""
        return self.detokeniser.text(token_ids)

    def room(self, prompt: TokenIds) -> int:
        """Tokens that the context leaves behind a prompt; raises `OptionError` where there is none."""
        room = self.max_context - len(prompt)
        if not prompt or room < 1:
            raise OptionError(
                f"A prompt has {len(prompt)} tokens; {self.identity.id} takes 1 to {self.max_context - 1}, "
                "with room for one more. Shorten the question, or use fewer worked examples (--shots)."
            )
        return room

    def check(self, request: Request) -> int:
        """Most tokens that will be written; raises `UserError` for a request that cannot run."""
        request.stage_plan.schedule.check_fits(self.identity.num_blocks)
        if (rule := request.stage_plan.exit) is not None and rule.missing:
            raise PlanError(f"The exit rule {rule} lacks {rule.missing}. `litestage search` finds it.")
        self._weights(request.stage_plan.compensation)
        room = self.room(request.prompt_ids)
        return self._check_choices(request, room) if request.choices else min(request.max_new_tokens, room)

    def _check_choices(self, request: Request, room: int) -> int:
        """The longest allowed text's tokens."""
        if any(token in self.model.eos_ids for one in request.choices for token in one[:-1]) or not all(
            one[-1] in self.model.eos_ids for one in request.choices
        ):
            raise OptionError(
                "Each text that an answer may be ends with the token that ends a text, and has it nowhere else: "
                f"of {self.identity.id} {self.eos_id}. Take them from the engine's continuations()."
            )
        longest = max(map(len, request.choices))
        if longest > room:
            raise OptionError(
                f"A prompt has {len(request.prompt_ids)} tokens and an answer to choose up to {longest}; "
                f"{self.identity.id} takes {self.max_context} together. Shorten the question, or use fewer worked "
                "examples (--shots)."
            )
        return longest

    def add(self, request: Request, *, stream: bool = False) -> int:
        """See `litestage.core.Engine`."""
        limit, plan = self.check(request), request.stage_plan
        weights, (batch, _) = self._weights(plan.compensation), self._ready()
        lead = _lead(request)
        opened = plan.schedule.leading_full_depth(len(lead))
        self._next_id += 1
        writing = None
        if self.drafter is not None and not request.choices:  # what is sure of an answer by choice runs anyway
            writing = self.drafter.begin(request.prompt_ids, request.drafts)
        self._arrived.append(
            Generation(
                self._next_id - 1,
                request,
                limit,
                None if request.sampling.is_greedy else uniforms_of(request.seed, limit),
                programs=tuple(
                    batch.program(one.skipped, plan.compensation, weights) for one in plan.schedule.segments
                ),
                stream=TextStream(self.detokeniser, request.stop) if stream else None,
                tokens=[*lead],
                confidences=[1.0] * len(lead),
                opened=opened,
                ran=opened,
                writing=writing,
            )
        )
        return self._next_id - 1

    def cancel(self, id: int) -> None:
        """See `litestage.core.Engine`."""
        batch, tree = self._ready()
        for rows in (self._arrived, self._waiting, batch.active):
            for row in [row for row in rows if row.id == id]:
                row.cancelled = True
                if rows is not batch.active:
                    rows.remove(row)
                    self._end_draft(row)
        self._leave(batch, tree)

    @torch.inference_mode()
    def work(self) -> list[Event]:
        """One forward: of beginnings that several requests share, of requests that enter, or of a token a row."""
        batch, tree = self._ready()
        self._order(tree)
        if not (self._chunked and batch.active) and (count := self._to_admit(batch, tree)):
            self._chunked = self.chunk is not None and bool(batch.active)
            if beginnings := self._beginnings(tree):
                self._prefill(tree, beginnings)
            elif part := self._part(tree):
                self._prefill(tree, part)
            else:
                self._enter(batch, tree, self._within_chunk(count))
        elif batch.active:
            self._chunked = False
            patient = self.on_logits is not None or any(row.reads_logits for row in batch.active)
            drafts = self.on_logits is None and any(row.writing for row in batch.active)
            for due in batch.decode(not patient and not self._too_long, self._guess if drafts else None):
                self._read(due)
        self._leave(batch, tree)
        events, self._events = self._events, []
        return events

    @torch.inference_mode()
    def scan(self, prompts: Sequence[TokenIds], prefixes: Sequence[TokenIds], visit: Visit) -> None:
        """Prefill prompts at full depth and show every sub-layer's work on their tokens, for rankings and fits.

        Tokens that several prompts share through ``prefixes`` are shown once, with the number of prompts as weight.
        """
        decoder = self.model.decoder
        cache = decoder.new_cache(1, max(map(len, prompts), default=0) + 1)
        shown: set[TokenIds] = set()
        there: TokenIds = ()
        for prompt, count in Counter(prompts).items():
            shared = {prefix for prefix in prefixes if prefix and prefix == prompt[: len(prefix)]}
            start = max((len(one) for one in shared if one == there[: len(one)]), default=0)
            for end in sorted({*map(len, shared), len(prompt)}):
                if end <= start:
                    continue
                part = prompt[:end]
                others = sum(other[:end] == part for other in prompts) if part in shared else count
                observe = _weighted(visit, 0 if part in shown else others)
                prefill(decoder, cache, [0], [part[start:]], [start], observe)
                shown |= {part} & shared
                start = end
            there = prompt

    def forget(self, but: Sequence[TokenIds] = ()) -> None:
        """Drop all that is kept of requests that are done, except the tokens of ``but``."""
        if self._made is not None:
            self._made[1].forget(but)

    def fixed_steps(self, cache: Cache) -> FixedSteps | None:
        """Steps over a cache, if this engine decodes by such; its last row is theirs."""
        return FixedSteps(self.model.decoder, cache) if self._by_fixed_steps else None

    def _ready(self) -> tuple[Batch, TokenTree]:
        if self._made is None:
            slots = min(SLOTS, -(-self.max_context // 64) * 64, self._longest_row)
            cache = self.model.decoder.new_cache(self._cache_tokens // slots, slots)
            tree = TokenTree(cache, cache.rows - self._by_fixed_steps)
            self._made = Batch(self.model.decoder, cache, self.fixed_steps(cache), self.model.eos_ids), tree
        return self._made

    @property
    def _longest_row(self) -> int:
        """Tokens of a cache row where there are as few as can be."""
        return self._cache_tokens // (1 + self._by_fixed_steps)

    def _order(self, tree: TokenTree) -> None:
        """Those that have arrived wait behind the others, the ones with most to prefill first."""
        if not self._arrived:
            return
        prompts = [row.opening for row in self._arrived]
        shared = shared_lengths(prompts) if self._share else {}
        held = {prompt: tree.find(prompt).length for prompt in shared}
        for row, prompt in zip(self._arrived, prompts, strict=True):
            there = held.get(prompt, 0)
            both = shared.get(prompt, 0)
            row.to_prefill = len(prompt) - (both if both - there >= BEGINNING else there)
        self._waiting += sorted(self._arrived, key=lambda row: -row.to_prefill)
        self._arrived = []

    def _to_admit(self, batch: Batch, tree: TokenTree) -> int:
        """How many of those that wait enter now; none while one of them is too long for the rows as they are."""
        if not self._waiting:
            return 0
        sizes = [row.to_prefill for row in self._waiting[: self.batch_size]]
        count = rows_to_admit(len(batch.active), sizes, min(self.batch_size, tree.rows))
        longest = max((row.last_length for row in self._waiting[:count]), default=0)
        return min(count, tree.rows - len(batch.active)) if self._lengthen(batch, tree, longest) else 0

    def _lengthen(self, batch: Batch, tree: TokenTree, needed: int) -> bool:
        """Have rows of so many tokens; false while more rows are in use than there would be."""
        slots = tree.cache.slots
        while slots < needed:
            slots = min(2 * slots, self._longest_row)
        self._too_long = needed > tree.cache.slots and (batch.is_ahead or len(batch.active) > tree.rows_of(slots))
        if needed > tree.cache.slots and not self._too_long:
            batch.move(tree.lengthen(slots, [row.cache_row for row in batch.active]), self.fixed_steps(tree.cache))
        return not self._too_long

    def _beginnings(self, tree: TokenTree) -> dict[TokenIds, Found]:
        """What is to be prefilled first because several that wait begin with it, and what is there of it."""
        window = [row for row in self._waiting[: tree.free] if not row.looked_at] if self._share else []
        prompts = [row.opening for row in window]
        held = {prompt: tree.find(prompt).length for prompt in set(prompts)}
        found = shared_beginnings(prompts, [held[prompt] for prompt in prompts])
        if not found or found == self._wave:
            for row in window:
                row.looked_at = True
            found = []
        self._wave = found
        there = [tree.find(beginning) for beginning in found]
        sizes = [len(beginning) - one.length for beginning, one in zip(found, there, strict=True)]
        return dict(list(zip(found, there, strict=True))[: rows_to_admit(0, sizes, self.batch_size)])

    def _prefill(self, tree: TokenTree, beginnings: Mapping[TokenIds, Found]) -> None:
        """Have the cache hold these tokens, of which some are there, or a chunk more of the first than it held."""
        if self._chunked:
            first, found = next(iter(beginnings.items()))
            beginnings, self._wave = {first[: found.length + (self.chunk or 0)]: found}, []
        for row in self._fill(tree, list(beginnings), list(beginnings.values()))[0]:
            tree.release(row)

    def _part(self, tree: TokenTree) -> dict[TokenIds, Found]:
        """The prompt of the first that waits, without its last token, where it is longer than a chunk."""
        prompt = self._waiting[0].request.prompt_ids
        if not self._chunked or len(prompt) <= (self.chunk or 0):
            return {}
        found = tree.find(prompt)
        self._waiting[0].to_prefill = len(prompt) - found.length
        return {prompt[:-1]: found} if self._waiting[0].to_prefill > (self.chunk or 0) else {}

    def _within_chunk(self, count: int) -> int:
        """How many of so many rows a chunk has room for; one at least."""
        if not self._chunked:
            return count
        sums = accumulate(row.to_prefill for row in self._waiting[:count])
        return max(1, sum(tokens <= (self.chunk or 0) for tokens in sums))

    def _enter(self, batch: Batch, tree: TokenTree, count: int) -> None:
        """Prefill new rows, always at full depth, and decide their first token."""
        rows = self._waiting[:count]
        prompts = [row.opening for row in rows]
        found = {prompt: tree.find(prompt) if self._share else Found(0, 0) for prompt in set(prompts)}
        places, logits = self._fill(tree, prompts, [found[prompt] for prompt in prompts])
        for row, place in zip(rows, places, strict=True):
            row.cache_row = place
        batch.active += rows
        del self._waiting[:count]
        if undecided := [place for place, row in enumerate(rows) if row.ran == len(row.tokens)]:
            self._accept(batch.first([rows[place] for place in undecided], logits[undecided]))

    def _fill(
        self, tree: TokenTree, prompts: Sequence[TokenIds], found: Sequence[Found]
    ) -> tuple[list[int], Float[Tensor, "B V"]]:
        """Cache rows that hold these prompts, and the raw logits after each one's last token.

        Where that does not come to its end, as by Ctrl-C, the rows are free again, and hold nothing.
        """
        places = tree.place(found)
        try:
            return places, self._filled(tree, prompts, found, places)
        except BaseException:
            for place in places:
                tree.hold(place, ())
                tree.release(place)
            raise

    def _filled(
        self, tree: TokenTree, prompts: Sequence[TokenIds], found: Sequence[Found], places: Sequence[int]
    ) -> Float[Tensor, "B V"]:
        decoder = self.model.decoder
        rest = [prompt[one.length :] for prompt, one in zip(prompts, found, strict=True)]
        new = [place for place, tokens in enumerate(rest) if tokens]
        logits = torch.empty(len(prompts), decoder.head.shape[0], dtype=decoder.dtype, device=decoder.device)
        for place, one in enumerate(found):
            if one.logits is not None:
                logits[place] = one.logits
        if new:
            starts = [found[place].length for place in new]
            logits[new] = prefill(
                decoder, tree.cache, [places[place] for place in new], [rest[place] for place in new], starts
            )
            if self.on_pass is not None:
                tokens = sum(len(rest[place]) for place in new)
                self.on_pass(Prefill(len(new), tokens, max(len(prompts[place]) for place in new)))
        for place, prompt, one in zip(places, prompts, logits, strict=True):
            tree.hold(place, prompt, one.clone())
        return logits

    def _read(self, due: Due) -> None:
        """Take in what a step says of its rows."""
        if self.on_pass is not None and due.work is not None:
            self.on_pass(due.work)
        self._accept(due)

    def _accept(self, due: Due) -> None:
        """Give every row that has not ended its next tokens: one, and more as far as its draft was right.

        What a wrong draft left in the cache lies behind the row's text, where its next tokens go.
        """
        if self.on_logits is not None:
            self.on_logits(*due.one_by_one())
        for row, run, decisions in due.decided():
            if not row.runs:
                continue
            row.ran += run.pending
            if row.request.choices and run.decides:
                self._choose(row, decisions[0])
                continue
            before = len(row.tokens)
            for place, one in enumerate(decisions):
                self._take(row, one)
                if not row.runs or place == len(run.draft) or run.draft[place] != one.token:
                    break
                row.ran += 1
            if row.writing is not None and self.drafter is not None:
                self.drafter.take(row.writing, row.tokens[before:])

    def _guess(self, rows: Sequence[Generation]) -> list[TokenIds]:
        """What may follow each row's text, as much as pays."""
        assert self.drafter is not None
        asked = [(row.writing, row.most_tokens - row.pending) for row in rows if row.writing is not None]
        found = iter(self.drafter.guess(asked, sum(row.pending for row in rows), len(rows)))
        return [() if row.writing is None else as_tokens(next(found)) for row in rows]

    def _end_draft(self, row: Generation) -> None:
        if row.writing is not None and self.drafter is not None:
            self.drafter.end(row.writing, whole=row.reason is not None)
            row.writing = None

    def _take(self, row: Generation, decided: Decided) -> None:
        """Give a row its next token, or find that it ends there."""
        token, sure, logits = decided
        if not isfinite(sure):
            self._fail(row)
            return
        row.accept(token, sure, self.model.eos_ids, self._seen(row, token, logits))
        if row.reason in (None, "length") and self.detokeniser.stops(row.tokens, row.request.stop):
            row.reason = "stop"
        self._tell(row)

    def _seen(self, row: Generation, token: int, logits: Float[Tensor, " V"]) -> Value:
        """What the row's exit rule looks at in its next token, where that is not the confidence."""
        rule = row.request.stage_plan.exit
        if rule is None or rule.looks_at == "confidence":
            return None
        return entropy_bits(logits) if rule.looks_at == "entropy" else rule.read(self.decode([*row.tokens, token]))

    def _fail(self, row: Generation) -> None:
        """End a row whose logits are no numbers; the others go on."""
        row.cancelled = True
        self._events.append(Failed(row.id, not_finite(self.model, (*row.request.prompt_ids, *row.tokens))))

    def _choose(self, row: Generation, decided: Decided) -> None:
        """Give a row the next token of those that its answer may go on with."""
        _, sure, logits = decided
        if not isfinite(sure):
            self._fail(row)
            return
        only = allowed(row.request.choices, row.tokens)
        fork = logits[only].float()
        u = None if row.uniforms is None else row.uniforms[len(row.tokens)][None].to(fork.device)
        at, _ = decide(fork[None], row.request.sampling, u)
        row.asked.append((len(row.tokens), dict(zip(only, fork.softmax(-1).tolist(), strict=True))))
        row.choose(only[int(at)], sure)
        self._tell(row)

    def _tell(self, row: Generation) -> None:
        """What is new of a row."""
        text = self._text(row) if row.reason else ""
        if row.stream is not None:
            self._events += [NewToken(row.id, token) for token in row.tokens[row.told :]]
            row.told = len(row.tokens)
            if piece := row.stream.last(text) if row.reason else row.stream.next(row.tokens):
                self._events.append(NewText(row.id, piece))
        if row.reason:
            self._events.append(Finished(row.id, row.completion(text)))

    def _leave(self, batch: Batch, tree: TokenTree) -> None:
        """Rows that ended give their cache rows back, with what others may begin with."""
        for row in [row for row in batch.active if not row.runs]:
            batch.active.remove(row)
            self._end_draft(row)
            if self._share:
                written = row.at_full_depth if self.keeps_written else []
                tree.hold(row.cache_row, [*row.request.prompt_ids, *written])
            else:
                tree.hold(row.cache_row, ())
            tree.release(row.cache_row)
        if not batch.active and not self._waiting and not self._arrived:
            tree.trim(self._kept_tokens)
            batch.forget_programs()

    def _weights(self, compensation: Compensation) -> CompensationWeights:
        content = compensation.content
        if content is None:
            return {}
        if content not in self.stands:
            raise PlanError(
                f"The plan's {compensation.kind} compensation ({content[:12]}) is not loaded: its numbers "
                "lie in the plan folder. Load the plan from its whole folder."
            )
        return self.stands[content]

    def _text(self, row: Generation) -> str:
        if row.reason == "stop":
            return self.detokeniser.until(row.tokens, row.request.stop)
        return self.decode(row.tokens[:-1] if row.reason in ("eos", *EXITS) else row.tokens)


def _encoded(model: LoadedModel, text: str, chat: Chat | None) -> TokenIds:
    return model.prompts.encode([text], chat)[0]


def _continued(model: LoadedModel, prompt: str, texts: tuple[str, ...], chat: Chat | None) -> tuple[TokenIds, ...]:
    return tuple(one.target for one in model.prompts.teach([prompt] * len(texts), texts, chat))


def _lead(request: Request) -> TokenIds:
    """What every allowed text begins with: the tokens that run at full depth, as the prompt's do, are prefilled."""
    lead = forced(request.choices)
    return lead if allowed(request.choices, lead) else ()


def _weighted(visit: Visit, weight: int) -> Observer | None:
    """Show a single row's tokens with a weight; nothing to show at weight 0."""
    return (lambda layer, before, after: visit(layer, before[0], after[0], weight)) if weight else None
