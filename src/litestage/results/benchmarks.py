"""What benchmarks of the engine leave: steps, questions, precisions, searches and memory."""

from __future__ import annotations

from statistics import median
from typing import Any, Literal

from litestage.core import Conditions, Machine
from litestage.core.drafts import DraftSource, Prices
from litestage.core.layers import Record
from litestage.evaluation import Accuracy, Paired, Speedup, speedup

OURS = "litestage"
"""Our engine's name."""
NOTHING_SKIPPED = "nothing"


class Precision(Record):
    """How weights and cache are kept."""

    dtype: str
    quantisation: str

    @property
    def precision(self) -> str:
        return self.dtype if self.quantisation == "none" else f"{self.quantisation}, {self.dtype} cache"


class StepTime(Precision):
    """A decode step of one engine: median and quartiles of the samples, in milliseconds."""

    engine: str
    rows: int
    skipped: str
    """What is left out, in words."""
    compensation: str = "none"
    """What stands in for it."""
    ms_per_step: float
    ms_low: float
    ms_high: float
    tokens_per_s: float
    samples: int
    bound_share: float | None = None
    """Time to read the step's bytes from memory over the step's time; None for engines that do not tell them."""
    efficiency: float | None = None
    """Skip efficiency; None at full depth."""

    @property
    def title(self) -> str:
        return f"{self.engine}, {self.precision}"

    @property
    def ours(self) -> bool:
        return self.engine == OURS

    @property
    def full_depth(self) -> bool:
        return self.skipped == NOTHING_SKIPPED


class PrefillTime(Precision):
    """A prefill of one fresh prompt: median and quartiles of the samples, in milliseconds."""

    engine: str
    tokens: int
    ms: float
    ms_low: float
    ms_high: float
    samples: int

    @property
    def title(self) -> str:
        return f"{self.engine}, {self.precision}"

    @property
    def ours(self) -> bool:
        return self.engine == OURS


class DecodeBench(Record):
    """Decode steps, timed in turn on one machine."""

    model: str
    context: int
    """Tokens of each row's prompt."""
    repeats: int
    bandwidth: float
    """Gigabytes a second read from memory; on a GPU read and written by a copy."""
    steps: tuple[StepTime, ...]
    prefills: tuple[PrefillTime, ...] = ()
    clock: Literal["wall", "processor"] = "wall"
    """Whether times are of the wall clock, or processor time of a single thread."""
    conditions: Machine | None = None


class DropInMemory(Precision):
    """Resident memory of a process that loaded one model and decoded, in megabytes."""

    engine: str
    loaded_mb: float
    """When all was timed: weights, caches, and Python with torch and transformers."""
    peak_mb: float
    """The most there ever was, mostly while loading."""


class DropInBench(Record):
    """A plan inside transformers' `generate`, beside plain `generate` and our engine, timed in turn."""

    model: str
    context: int
    """Tokens of each row's prompt."""
    repeats: int
    steps: tuple[StepTime, ...]
    memory: tuple[DropInMemory, ...]
    conditions: Machine


class TurnTime(Record):
    """A group of questions that a system answered at once."""

    questions: int
    seconds: float
    tokens: int


class PipelineTime(Record):
    """A system's work on whole questions."""

    system: str
    batch_size: int
    """Rows that decode together."""
    questions: int
    seconds: float
    questions_per_s: float
    ratio: float
    """The first system's time over this one's: the median over groups of questions that both answered."""
    token_ratio: float
    """The same of seconds a generated token: texts drawn at random differ in length."""
    same_texts: float
    """Share of runs whose every text equals the first system's; sampled runs draw differently."""
    tokens: int
    """Generated."""
    turns: tuple[TurnTime, ...] = ()


class PipelineBench(Precision):
    """Whole questions, answered by every system in turn on one machine."""

    model: str
    task: str
    shots: int
    votes: int | None
    at_once: int | None = None
    """Questions of a group."""
    systems: tuple[PipelineTime, ...]
    conditions: Conditions


class DraftRun(Record):
    """One question answered: its seconds, the forwards that decoded, and the tokens that those ran."""

    seconds: float
    forwards: int
    tokens: int


class DraftTurn(Record):
    """One question, answered without drafts and with them."""

    question_id: str
    without: DraftRun
    drafted: DraftRun
    same_texts: bool
    """Tokens, and confidences to the last bit."""


class DraftBench(Precision):
    """Questions one at a time, each without drafts and with them in turn; no texts."""

    model: str
    task: str
    shots: int
    votes: int | None
    source: DraftSource
    prices: Prices
    warm: int
    """First questions, which only fill the memory."""
    turns: tuple[DraftTurn, ...]
    conditions: Conditions

    @property
    def counted(self) -> tuple[DraftTurn, ...]:
        return self.turns[self.warm :]

    @property
    def ratio(self) -> float:
        """Of the medians of the questions' seconds."""
        return median(one.without.seconds for one in self.counted) / median(one.drafted.seconds for one in self.counted)

    @property
    def speedup(self) -> Speedup:
        """Of the sums, with its interval over questions."""
        before = {one.question_id: one.without.seconds for one in self.counted}
        return speedup(
            before, {one.question_id: one.drafted.seconds for one in self.counted}, baseline_name="no drafts"
        )


class Rung(Record):
    """One step of the ladder: all that the rungs below have, and something more."""

    name: str
    adds: str
    """What that is, in words."""
    seconds: float
    """A question."""
    ratio: float
    """The first rung's seconds over these."""
    low: float
    high: float
    """Ends of its 95 % interval over questions."""
    change_points: float
    """Accuracy less the first rung's, in points."""
    paired: Paired
    accuracy: Accuracy
    same_texts: float
    """Share of questions whose every text is the first rung's."""


class LadderBench(Precision):
    """One question at a time, from transformers up, all rungs in turn on one machine."""

    model: str
    task: str
    shots: int
    questions: int
    warm: int
    """Other questions that each rung had answered before."""
    repeats: int
    plan: str
    """Where the last rung's comes from."""
    rungs: tuple[Rung, ...]
    conditions: Conditions


class PrecisionAccuracy(Precision):
    """A precision of the model against fp32: answers, and tokens when fp32's own texts are teacher-forced."""

    accuracy: Accuracy
    paired: Paired
    agreement: float
    """Share of tokens, 0 to 1, whose likeliest successor stays fp32's."""
    kl: float
    """Mean KL(fp32 || precision) of a token, in nats."""
    tokens: int


class PrecisionBench(Record):
    """Every precision of a model on the same questions."""

    model: str
    task: str
    shots: int
    forms: tuple[PrecisionAccuracy, ...]
    conditions: Conditions


class SearchTime(Precision):
    """A whole search in one precision."""

    seconds: float
    questions: int
    settings: int
    """Measured."""
    answered: int
    """Questions, over all settings."""
    percent: float
    """Of the questions that the plan found answers rightly."""
    skipped: dict[str, int]
    """Sub-layers by stage."""


class SearchBench(Record):
    """The same search in every precision."""

    model: str
    task: str
    forms: tuple[SearchTime, ...]
    conditions: Conditions


class MemoryBench(Precision):
    """Resident memory of one process, in megabytes."""

    model: str
    task: str
    questions: int
    """In each round."""
    imported_mb: float
    """With torch and transformers imported."""
    loading_peak_mb: float
    loaded_mb: float
    after_rounds_mb: tuple[float, ...]
    weights_mb: float
    cache_mb: float
    """KV cache and kept prefixes, after the last round."""
    conditions: Conditions

    @property
    def overhead_mb(self) -> float:
        """After the last round: what is neither imports nor weights nor cache."""
        return self.after_rounds_mb[-1] - self.imported_mb - self.weights_mb - self.cache_mb


class TokenCheck(Precision):
    """Rows whose tokens were compared with what they should be."""

    name: str
    same: int
    of: int
    right: bool
    """Whether they are the same, or need not be: rounding between rows may change some."""


class AllBench(Record):
    """Everything of one machine."""

    checks: tuple[TokenCheck, ...]
    parts: dict[str, dict[str, Any]]
    """Records of other benchmarks, by name."""
    failed: dict[str, str]
    """What kept a part from being done."""
    seconds: dict[str, float]

    @property
    def right(self) -> bool:
        return bool(self.checks) and all(check.right for check in self.checks)
