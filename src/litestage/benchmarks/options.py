"""What a benchmark can be asked for, beside model, task and questions."""

from __future__ import annotations

from dataclasses import dataclass

from litestage.core import OptionError
from litestage.core.plan import check_compensation
from litestage.jobs.options import WHAT, DraftOptions, Options, names, numbers, option


def _kinds(text: str) -> tuple[str, ...]:
    return tuple(check_compensation(kind.strip()) for kind in text.split(","))


PRECISIONS = ("fp32", "bf16", "int8", "int4")


def _precisions(text: str) -> tuple[str, ...]:
    wanted = names(text)
    if unknown := next((name for name in wanted if name not in PRECISIONS), None):
        raise OptionError(f"{unknown} is not known. Choose from {', '.join(PRECISIONS)}.")
    return wanted


@dataclass(frozen=True)
class DecodeBenchOptions(Options):
    """Which decode steps are timed, and beside whom."""

    rows: tuple[int, ...] = option(
        (1, 8, 32), "N,...", "Rows that decode together.", WHAT, read=numbers(int), typed="1,8,32"
    )
    context: int = option(128, "N", "Tokens of each row's prompt.", WHAT, least=1)
    peers: str = option(
        "all",
        "NAME,...",
        "transformers; llama.cpp (needs llama-cpp-python, a GGUF file and the CPU); all of these that run here; "
        "openvino, vllm and onnxruntime, each from an environment of its own and never among all; or none.",
        WHAT,
    )
    precisions: tuple[str, ...] = option(
        ("fp32", "bf16", "int8", "int4"),
        "NAME,...",
        "In which we are timed: fp32, bf16, int8, int4.",
        WHAT,
        read=_precisions,
        typed="fp32,bf16,int8,int4",
    )
    prefill: int = option(0, "N", "Also time the prefill of a fresh prompt of so many tokens.", WHAT, least=0)
    clock: str = option(
        "wall",
        "wall|processor",
        "Wall clock, or for a busy machine the processor time of one thread (CPU; no transformers, no llama.cpp).",
    )
    full_depth: bool = option(False, "", "Time no steps that leave blocks, attentions or FFNs out.", WHAT)
    compensation: tuple[str, ...] = option(
        ("none",),
        "KIND,...",
        "Also time blocks that something stands in for: norm_ratio,mean,affine,lowrank:16.",
        WHAT,
        read=_kinds,
        typed="none",
    )
    repeats: int = option(9, "N", "Samples of each setting, taken in turn.", least=1)


@dataclass(frozen=True)
class PipelineBenchOptions(Options):
    """How many questions are answered together, and by whom."""

    votes: int | None = option(None, "N", "Sampled runs of each question; greedy without.", least=1)
    at_once: int = option(4, "N", "Questions that go through the stages together.", least=1)
    peer_questions: int = option(
        4,
        "N",
        "Questions that transformers, and the engine in part, answer too, in whole groups of --at-once; "
        "0 leaves transformers out.",
        least=0,
    )
    whole: bool = option(False, "", "Time the engine with all that it has alone, not also in part.", WHAT)
    peers: tuple[str, ...] = option(
        (),
        "NAME,...",
        "Also openvino or vllm, each from an environment of its own, on all questions.",
        WHAT,
        read=names,
        typed=None,
    )
    peer_batch_size: int | None = option(
        None, "N", "Rows that transformers decodes together. Default: as many as we.", least=1
    )


@dataclass(frozen=True)
class DraftBenchOptions(DraftOptions):
    """From what is drafted, how questions are answered, and how many of them fill the memory first."""

    votes: int | None = option(None, "N", "Sampled runs of each question; greedy without.", least=1)
    warm: int = option(20, "N", "First questions, which are not counted: they fill the memory.", least=0)


@dataclass(frozen=True)
class MemoryBenchOptions(Options):
    """How much is answered while memory is watched."""

    rounds: int = option(2, "N", "Times that the questions are answered.", least=1)
    at_once: int = option(16, "N", "Questions that go through the stages together.", least=1)


@dataclass(frozen=True)
class DropInBenchOptions(Options):
    """Which steps of `apply_plan`, `generate` and the engine are timed."""

    rows: tuple[int, ...] = option((1, 8), "N,...", "Rows that decode together.", WHAT, read=numbers(int), typed="1,8")
    context: int = option(128, "N", "Tokens of each row's prompt.", WHAT, least=1)
    repeats: int = option(9, "N", "Samples of each setting, taken in turn.", least=1)


@dataclass(frozen=True)
class LadderOptions(Options):
    """Which plan is the last rung, and on how many questions the rungs are timed."""

    plan: str | None = option(
        None, "DIR", "The plan of the last rung. Default: one that is searched for first, on a few questions.", WHAT
    )
    search_limit: int = option(40, "N", "Dev questions of that search.", WHAT, least=1)
    warm: int = option(5, "N", "Other questions that each rung answers before any is timed.", least=0)
    repeats: int = option(1, "N", "Times that each rung answers each question.", least=1)

    @property
    def warm_split(self) -> str:
        """They are none of those that are timed."""
        return "dev"


@dataclass(frozen=True)
class AllBenchOptions(Options):
    """How much of everything."""

    shapes: tuple[str, ...] = option(
        ("random:smollm2-135m", "random:tinyllama-1.1b"),
        "NAME,...",
        "Models whose steps and prefills are timed.",
        WHAT,
        read=names,
        typed="random:smollm2-135m, random:tinyllama-1.1b",
    )
    rows: tuple[int, ...] = option(
        (1, 8, 32), "N,...", "Rows that decode together.", WHAT, read=numbers(int), typed="1,8,32"
    )
    prefill: int = option(800, "N", "Tokens of the prompt whose prefill is timed.", WHAT, least=1)
    limit: int = option(12, "N", "Questions of each part that answers some.", WHAT, least=1)
    repeats: int = option(5, "N", "Samples of each setting, taken in turn.", least=1)
    minutes: float = option(9.0, "N", "No part begins later.", least=0)
