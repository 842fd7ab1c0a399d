"""What a person can ask for, declared once: commands make their options of these records, `load` its keywords.

Nothing here loads a model, so that ``--help`` is there at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from litestage.core import ExitRule, MeanConfidence, OptionError, SettledAnswer, parse_exit
from litestage.core.complaints import did_you_mean
from litestage.search import PathOptions, SearchOptions

if TYPE_CHECKING:
    from litestage.evaluation import VoteStop
    from litestage.jobs.policies import Policy

WHAT, HOW, WHERE = "What to run", "How to run it", "What comes out"
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Hint:
    """How an option is typed and explained."""

    help: str
    metavar: str
    panel: str
    flag: str
    """Its name on the command line, where that is not the field's."""
    least: float | None
    most: float | None
    read: Callable[[str], Any] | None
    """Turns what is typed into the value."""
    typed: str | None
    """The default as it would be typed, where it is read."""

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(self.metavar.split("|")) if "|" in self.metavar and not self.read else ()


def option(
    default: Any, metavar: str, help: str, panel: str = HOW, **more: Any
) -> Any:  # the type is the field's, as with dataclasses.field
    """A field with its help; a metavar ``a|b`` lists all that it may be. One that does not ``names_run`` is no part of
    what tells a run from others."""
    rest = {"flag": "", "least": None, "most": None, "read": None, "typed": None} | more
    shown = rest.pop("names_run", True)
    return field(default=default, repr=shown, metadata={"hint": Hint(help, metavar, panel, **rest)})


def hint_of(one: Field[Any]) -> Hint:
    hint: Hint = one.metadata["hint"]
    return hint


def flag_of(one: Field[Any]) -> str:
    """How the option is typed: ``--batch-size``."""
    return f"--{hint_of(one).flag or one.name.replace('_', '-')}"


@dataclass(frozen=True)
class Options:
    """A record of options. Raises `OptionError` for a value that is not among those listed, or too small."""

    def __post_init__(self) -> None:
        for one in fields(self):
            hint, value = hint_of(one), getattr(self, one.name)
            if hint.choices and value is not None and value not in hint.choices:
                *most, last = hint.choices
                raise OptionError(
                    f"{flag_of(one)} {value} is not known.{did_you_mean(str(value), hint.choices)} "
                    f"Choose {', '.join(most)} or {last}."
                )
            if hint.least is not None and value is not None and value < hint.least:
                raise OptionError(f"{flag_of(one)} {value} is too small. Give {hint.least:g} or more.")


def numbers(kind: Callable[[str], Number], least: float = 1e-9) -> Callable[[str], tuple[Number, ...]]:
    """Reads ``1,2,3``: numbers from ``least`` to a million, above 0 unless it is that; ascending and none twice."""

    def read(text: str) -> tuple[Number, ...]:
        try:
            found = tuple(sorted({kind(part) for part in text.split(",")}))
        except ValueError:
            found = ()
        if not found or not all(least <= number <= 1e6 for number in found):
            kinds = "numbers above 0" if least else "0 or numbers above it"
            raise OptionError(f"{text}: write {kinds}, up to a million, with commas between them: 1,2,3.")
        return found

    return read


def names(text: str) -> tuple[str, ...]:
    """Read ``a,b``: names, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",")))


def mean_confidence(text: str) -> MeanConfidence:
    """Read the paper's exit rule; raises `OptionError` for another one."""
    rule = parse_exit(text)
    if not isinstance(rule, MeanConfidence):
        raise OptionError(
            f"{text}: a diagnosis follows the confidence of tokens against one threshold, so its rule is the mean "
            "confidence. Write 5,0.5; `litestage compare --exits` sets other rules side by side."
        )
    return rule


@dataclass(frozen=True)
class ModelOptions(Options):
    """Which model, and in what precision."""

    name: str = option("everyday", "NAME", "Short name, folder, .gguf file or hub id.", WHAT, flag="model")
    adapter: str | None = option(None, "NAME", "LoRA adapter: short name or folder.", WHAT)
    device: str = option("auto", "NAME", "auto, cpu, cuda or mps.")
    dtype: str = option("fp32", "fp32|bf16", "Number format of weights and cache.")
    quantise: str = option("none", "none|int8|int4", "Round weights to 8 or 4 bits (CPU, CUDA).")

    def anywhere(self) -> ModelOptions:
        """The same from any working folder: files are named whole."""

        def whole(text: str) -> str:
            return str(Path(text).absolute()) if Path(text).exists() else text

        return replace(self, name=whole(self.name), adapter=self.adapter and whole(self.adapter))


@dataclass(frozen=True)
class DataOptions(Options):
    """Which task, and which of its questions."""

    task: str = option("everyday", "NAME", "Built-in task, or a .toml or .yaml file.", WHAT)
    data: str | None = option(None, "DIR", "Folder with dev.jsonl and test.jsonl, or one .jsonl file.", WHAT)
    split: str = option("dev", "dev|test|train|certify", "Which questions.", WHAT)
    limit: int | None = option(None, "N", "Only the first so many questions.", WHAT, least=1)
    shots: int | None = option(
        None, "N", "Worked examples in each prompt. Default: 3, none for a model trained on the task.", WHAT
    )
    answering: str | None = option(
        None,
        "free|choice",
        "Whether the last stage writes as it likes, or one of the texts that stand for the choices. "
        "Default: as the task says; the built-in ones write as they like.",
        WHAT,
    )


@dataclass(frozen=True)
class DecodingOptions(Options):
    """How answers are decoded; they do not depend on it, but for a seed's draws and the last bits of fp32."""

    batch_size: int = option(32, "N", "Rows that decode together.", least=1)
    workers: int | None = option(
        None,
        "N",
        "Processes that answer side by side on a processor, or workers of a cluster. Default: two for a small model; "
        "on a cluster all that there is room for.",
        least=1,
    )
    seed: int = option(0, "N", "For all that is drawn at random.", least=0)


def cluster_address(text: str) -> str:
    """Read ``local``, ``auto`` or ``HOST:PORT``."""
    host, _, port = text.rpartition(":")
    if text in ("local", "auto") or (host and port.isdigit() and "/" not in host):
        return text
    raise OptionError(
        f"{text}: write local for this machine alone, auto for the cluster that this machine is part of, or the "
        "address of its head: 10.0.0.1:6379."
    )


@dataclass(frozen=True)
class ClusterOptions(DecodingOptions):
    """The same, and who decodes: workers of a cluster, whatever their number, write the same."""

    cluster: str | None = option(
        None,
        "local|ADDRESS",
        "Let workers of a Ray cluster answer: local, auto or HOST:PORT.",
        read=cluster_address,
        names_run=False,
    )
    price_on: str | None = option(
        None,
        "NODE",
        "Take times and prices on a worker of this machine of the cluster. Default: on this machine.",
        names_run=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.price_on and not self.cluster:
            raise OptionError(f"--price-on {self.price_on} names a machine of a cluster. Give --cluster ADDRESS too.")
        if self.cluster:
            needs_ray(f"--cluster {self.cluster}")


def needs_ray(what: str) -> None:
    """Raise `OptionError` where Ray is not installed."""
    if find_spec("ray") is None:
        raise OptionError(f'{what} needs Ray. Install it with pip install "litestage[ray]", here and on every machine.')


@dataclass(frozen=True)
class DraftOptions(Options):
    """From what next tokens are guessed, while questions are answered one by one (docs/how-it-works.md)."""

    drafts: str = option(
        "auto",
        "auto|none|prompt|request|stage",
        "Guess tokens from the prompt, the request's other texts, or what the stage wrote before.",
    )


@dataclass(frozen=True)
class OutputOptions(Options):
    """Where results go, and how they are printed."""

    out: Path | None = option(None, "DIR", "Where results go. Default: under runs/.", WHERE)
    json: bool = option(False, "", "Print one JSON document instead of tables.", WHERE)


LEVERS = ("exit", "stage", "none")


def levers(text: str) -> tuple[str, ...]:
    """Read ``exit,stage``, or ``none``."""
    found = names(text)
    for name in found:
        if name not in LEVERS:
            raise OptionError(
                f"{name or repr(name)} is not known.{did_you_mean(name, LEVERS)} Choose {', '.join(LEVERS)}."
            )
    if "none" in found and len(found) > 1:
        raise OptionError(f"{text}: none and others contradict each other.")
    return tuple(name for name in found if name != "none")


def latency(text: str) -> float:
    """Read ``80ms``, ``1.5s`` or ``1.5``: seconds."""
    number, factor = (text[:-2], 1e-3) if text.endswith("ms") else (text.removesuffix("s"), 1.0)
    try:
        seconds = float(number) * factor
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise OptionError(f"{text}: write a time a question above 0, such as 80ms or 1.5s.")
    return seconds


def part(text: str) -> float:
    """Read a number of questions (``250``) or a share of them (``0.5`` or ``50%``)."""
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9 or (number >= 1 and number != int(number)):
        raise OptionError(f"{text}: write a number of questions (250), or a share of them (0.5).")
    return number


UNSURE = "End texts early: 5,0.5 or entropy:5,3 where they turn unsure, calibrated:16,0.9, answer:2."


def _one_exit(exit: ExitRule | None, no_exit: bool) -> None:
    if exit is not None and no_exit:
        raise OptionError("--exit and --no-exit contradict each other. Leave one out.")


@dataclass(frozen=True)
class PlanOptions(Options):
    """A plan folder, or full depth, with sets and an exit rule put over it by hand."""

    plan: str | None = option(None, "DIR", "A plan folder; full depth without.", WHAT)
    skip: tuple[str, ...] = option(
        (),
        "STAGE=LAYERS",
        "Skip a set by hand: recall=7.attention,9.ffn. Once a stage; replaces the plan's own set there.",
    )
    exit: ExitRule | None = option(
        None,
        "RULE",
        f"{UNSURE} Replaces the plan's own rule in all stages. Default: as in the plan; off without one.",
        read=parse_exit,
    )
    no_exit: bool = option(False, "", "Never end a text early.")

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_exit(self.exit, self.no_exit)


CHANGE = "What is changed"
MOST_QUESTIONS = 1_000_000


def counts(text: str) -> tuple[int, int, int]:
    """Read ``LOST,GAINED,N``."""
    try:
        lost, gained, n = (int(part) for part in text.split(","))
    except ValueError:
        raise OptionError(
            f"{text}: write the questions lost, those gained and all of them, as whole numbers with commas: 24,17,149."
        ) from None
    if min(lost, gained) < 0 or not 1 <= n <= MOST_QUESTIONS:
        raise OptionError(f"{text}: none may be below 0, and questions are 1 to a million.")
    if lost + gained > n:
        raise OptionError(
            f"{text}: {lost} lost and {gained} gained are more than {n} questions. The third number is all questions, "
            "also those that did not change."
        )
    return lost, gained, n


@dataclass(frozen=True)
class ChangeOptions(Options):
    """What is done to a system at full depth; all of it together is certified."""

    plan: str | None = option(None, "DIR", "Run a plan folder, which then keeps its certificate.", CHANGE)
    skip: tuple[str, ...] = option((), "STAGE=LAYERS", "Skip a set by hand: recall=7.attention,9.ffn.", CHANGE)
    exit: ExitRule | None = option(None, "RULE", UNSURE, CHANGE, read=parse_exit)
    no_exit: bool = option(False, "", "Leave out the plan's exit rules.", CHANGE)
    to_quantise: str | None = option(None, "int8|int4", "Round weights to 8 or 4 bits.", CHANGE, flag="quantise")
    to_adapter: str | None = option(None, "NAME", "Run another LoRA adapter than before.", CHANGE)
    without: str | None = option(None, "STAGE", "Leave a stage out.", CHANGE)

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_exit(self.exit, self.no_exit)

    @property
    def is_plan_alone(self) -> bool:
        """Whether a certificate of it is the plan's own."""
        return self.plan is not None and self == ChangeOptions(plan=self.plan)

    @property
    def by_hand(self) -> PlanOptions:
        """What of it a plan can say."""
        return PlanOptions(self.plan, self.skip, self.exit, self.no_exit)

    def __str__(self) -> str:
        parts = (
            f"plan {self.plan}" if self.plan else "",
            f"skips {'; '.join(self.skip)}" if self.skip else "",
            f"exit {self.exit}" if self.exit else "",
            "no exit" if self.no_exit else "",
            f"{self.to_quantise} weights" if self.to_quantise else "",
            f"adapter {self.to_adapter}" if self.to_adapter else "",
            f"without stage {self.without}" if self.without else "",
        )
        return ", ".join(filter(None, parts))


@dataclass(frozen=True)
class CertifyOptions(Options):
    """What is asked for, and counts in place of answers."""

    max_drop: float = option(3.0, "POINTS", "Accuracy points that the change may lose (epsilon).", WHAT)
    counts: tuple[int, int, int] | None = option(
        None, "LOST,GAINED,N", "Counts from elsewhere: questions lost, gained, and all.", WHAT, read=counts
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.max_drop <= 100:
            raise OptionError(
                f"--max-drop {self.max_drop:g}: a certificate is of a loss above 0 and up to 100 points. No number of "
                "questions shows that nothing at all is lost; try 2."
            )


@dataclass(frozen=True)
class PriceOptions(Options):
    """What finished work is priced for."""

    batch_size: int = option(1, "N", "Questions that go through a stage together.", WHAT, least=1)


@dataclass(frozen=True)
class ExportOptions(Options):
    """Which blocks a plain model goes without, and on how many questions that is measured."""

    plan: str | None = option(None, "DIR", "A plan of whole blocks, the same in all stages.", WHAT)
    blocks: tuple[int, ...] | None = option(
        None, "N,...", "Blocks to take out, where no plan says them.", WHAT, read=numbers(int, least=0)
    )
    measure: int = option(100, "N", "Questions to measure the change on; 0 measures none.", WHAT, least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.plan is not None and self.blocks is not None:
            raise OptionError("--plan and --blocks both say which blocks to take out. Give one.")


@dataclass(frozen=True)
class RunOptions(DraftOptions):
    """Which question is answered when none is typed, and what is said of it."""

    sample: int | None = option(None, "N", "Without a question: number N of the embedded test set.", WHAT, least=1)
    explain: bool = option(False, "", "Say what was skipped and where texts ended.", WHERE)


def exit_rules(first: ExitRule | None, others: Sequence[str]) -> tuple[ExitRule, ...]:
    """The rules asked for, each once; the paper's is the first where no other is."""
    return tuple(dict.fromkeys((first or MeanConfidence(), *map(parse_exit, others))))


@dataclass(frozen=True)
class SearchSettings(Options):
    """How a plan is searched for, and what it may lose."""

    max_drop: float = option(
        3.0, "POINTS", "Accuracy points the plan may lose at most (epsilon), with 95 % confidence."
    )
    latency_target: float | None = option(
        None, "TIME", "Seconds a question may take, as 80ms: the safest plan within it.", read=latency
    )
    certify: float | None = option(
        None,
        "N|SHARE",
        "Questions kept for the certificate alone. Default: a certify split, or half of dev.",
        WHAT,
        read=part,
    )
    step: int = option(2, "N", "Sub-layers between two budgets tried.", least=1)
    exhaustive: bool = option(False, "", "Profile every budget, also after three misses in a row.")
    preset: str = option(
        "path",
        "path|paper|probed",
        "A path of plans that is certified; the paper's greedy; or that with several rankings and stand-ins. "
        "The last two promise nothing.",
    )
    plans: int = option(6, "N", "Plans on the path at most; each is answered by certify questions.", least=2)
    levers: tuple[str, ...] = option(
        ("exit", "stage"),
        "NAME,...",
        "What a path may do besides skipping: exit, stage (leave one out), none.",
        read=levers,
        typed="exit,stage",
    )
    ranking: tuple[str, ...] | None = option(
        None,
        "NAME,...",
        "Rankings to try: cosine, cosine_by_stage, cosine_decoded, probe, probe_pooled, greedy, greedy_pooled.",
        read=names,
    )
    compensation: tuple[str, ...] | None = option(
        None,
        "KIND,...",
        "What to try in place of a skipped sub-layer: none, norm_ratio, mean, affine, lowrank:16.",
        read=names,
    )
    exit: ExitRule | None = option(None, "RULE", f"{UNSURE} Default: 5,0.5 is tried.", read=parse_exit)
    exits: tuple[str, ...] = option((), "RULE", "For a path: try another exit rule as well. Once a rule.")
    no_exit: bool = option(False, "", "Never end a text early.")
    search_exit: bool = option(False, "", "Profile with exit on already.")
    latency: str = option("priced", "priced|wall", "Price counted work, or time every run.")

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_exit(self.exit, self.no_exit)
        if self.preset != "path" and (self.latency_target is not None or self.certify is not None):
            name = "--certify" if self.latency_target is None else "--latency-target"
            raise OptionError(f"{name} is for --preset path: the paper's search is not certified. Leave one out.")
        if len(self.exit_rules) > 1 and (self.preset != "path" or self.no_exit):
            other = "--no-exit" if self.no_exit else f"--preset {self.preset}"
            raise OptionError(f"--exits tries further exit rules for a path, which {other} does not. Leave one out.")
        if self.preset == "path" and not self.max_drop:
            raise OptionError(
                "--max-drop 0: no number of questions shows that nothing at all is lost. Give points above 0, such as "
                "2; or --preset paper, which promises nothing."
            )
        if self.options and (self.ranking or self.compensation):
            assert self.policies  # names that are not known are told before a model is loaded

    @property
    def options(self) -> SearchOptions:
        """What the strategy itself has to know."""
        return SearchOptions(
            max_drop=self.max_drop,
            step=self.step,
            exhaustive=self.exhaustive,
            use_exit=not self.no_exit,
            search_exit=self.search_exit,
        )

    def path_options(self, stages: Sequence[str], promised_on: int) -> PathOptions:
        """What the search for a path has to know."""
        return PathOptions(
            max_drop=self.max_drop,
            latency=self.latency_target,
            promised_on=promised_on,
            plans=self.plans,
            step=self.step,
            exits=self._exits(stages) if "exit" in self.levers and not self.no_exit else {},
            left_out=tuple(stages[:-1]) if "stage" in self.levers else (),
        )

    def _exits(self, stages: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Names of the rules that each stage can have: only the last states an answer that may settle."""
        settling = {str(rule) for rule in self.exit_rules if isinstance(rule, SettledAnswer)}
        names = tuple(str(rule) for rule in self.exit_rules)
        others = tuple(name for name in names if name not in settling)
        return {stage: names if stage == stages[-1] else others for stage in stages}

    @property
    def exit_rules(self) -> tuple[ExitRule, ...]:
        """The rules that are tried, the paper's first where nothing is asked for."""
        return exit_rules(self.exit, self.exits)

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The preset's policies, with rankings or compensations of the user's own in their place."""
        from litestage.jobs.policies import PRESETS, policies_of

        rankings, compensations = PRESETS[self.preset]
        return policies_of(self.ranking or rankings, self.compensation or compensations)


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """How often each question is answered, and how its latency is known."""

    votes: int | None = option(None, "N", "Sampled runs of each question; greedy without.", least=1)
    votes_stop: str | None = option(
        None, "decided|likely", "Stop a question's votes when the majority cannot change, or most likely will not."
    )
    votes_confidence: float | None = option(None, "P", "How likely that must be for likely. Default: 0.95.")
    latency: str = option("priced", "priced|wall", "Price counted work, or time every run.")

    def __post_init__(self) -> None:
        super().__post_init__()
        kind, confidence = self.votes_stop, self.votes_confidence
        if kind is None:
            if confidence is not None:
                raise OptionError("--votes-confidence is for --votes-stop likely. Add that, or leave it out.")
            return
        if self.votes is None or self.votes < 2:
            raise OptionError(f"--votes-stop {kind} needs several votes to stop. Give --votes, for example --votes 10.")
        if confidence is None:
            return
        if kind == "decided":
            raise OptionError("--votes-stop decided is certain: --votes-confidence has no part in it. Leave one out.")
        if not 0.5 < confidence < 1:
            raise OptionError(
                f"--votes-confidence {confidence:g} is not a probability above 0.5 and below 1. Try 0.95."
            )

    @property
    def stop(self) -> VoteStop | None:
        """The rule by which a question's votes end early."""
        from litestage.evaluation import VoteStop

        if self.votes_stop is None:
            return None
        return VoteStop.model_validate(
            {"kind": self.votes_stop, "votes": self.votes, "confidence": self.votes_confidence or 0.95}
        )


@dataclass(frozen=True)
class QuickstartOptions(Options):
    """How many questions each part uses; ``--limit`` says on how many the result is shown."""

    search_limit: int | None = option(96, "N", "Dev questions that the search uses.", WHAT, least=1)
    certify: int | None = option(
        400, "N", "Questions kept for the certificate alone, where they are a split of their own.", WHAT, least=1
    )
    wall: int = option(60, "N", "Test questions timed by the wall clock, drawn by --seed.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.wall < 1:
            raise OptionError(f"--wall {self.wall} would leave no question. Choose 1 or more.")


@dataclass(frozen=True)
class CompareOptions(Options):
    """What is compared, and how much of it."""

    methods: tuple[str, ...] = option(
        ("all",), "all|NAME,NAME", "Methods to compare, by name.", WHAT, read=names, typed="all"
    )
    blocks: tuple[int, ...] | None = option(
        None,
        "N,N",
        "What each method is asked to skip, in blocks. Default: four amounts, up to what LiteStage's plans skip.",
        WHAT,
        read=numbers(int),
    )
    max_drops: tuple[float, ...] = option(
        (1.0, 3.0, 5.0, 10.0),
        "POINTS,POINTS",
        "Points that LiteStage's plans may lose.",
        WHAT,
        read=numbers(float, least=0),
        typed="1,3,5,10",
    )
    plans: tuple[str, ...] = option(
        (),
        "DIR,DIR",
        "Plan folders of `litestage search` to compare, in place of a search for each of --max-drops.",
        WHAT,
        read=lambda text: tuple(name.strip() for name in text.split(",")),
    )
    search_limit: int | None = option(150, "N", "Dev questions that LiteStage searches on.", WHAT, least=1)
    wall: int = option(60, "N", "Of them, questions timed by the wall clock, drawn by --seed.")
    full: bool = option(
        False,
        "",
        "All questions, and every budget up to half the blocks, whatever --limit, --search-limit and --blocks say.",
        WHAT,
    )
    step: int = option(2, "N", "Sub-layers between two budgets tried.", least=1)
    exit: ExitRule | None = option(None, "RULE", f"{UNSURE} Default: 5,0.5 is tried.", read=parse_exit)
    exits: tuple[str, ...] = option((), "RULE", "Compare another exit rule at full depth. Once a rule.", WHAT)

    @property
    def exit_rules(self) -> tuple[ExitRule, ...]:
        """The rule that plans and uniform methods have, and those that are compared at full depth alone."""
        return exit_rules(self.exit, self.exits)

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.exit_rules  # those that cannot be read are told before a model is loaded
        if self.wall < 2:
            raise OptionError(f"--wall {self.wall} is too few to compare anything. Choose 2 or more.")
        if wrong := [drop for drop in self.max_drops if not 0 <= drop <= 100]:
            raise OptionError(
                f"--max-drops {wrong[0]:g} cannot be points of accuracy to lose. Give numbers of 0 to 100."
            )
        if twice := _twice(f"{drop:g}" for drop in self.max_drops):
            raise OptionError(f"--max-drops has {twice} twice, or two numbers that differ by next to nothing from it.")
        if twice := _twice(self.plans):
            raise OptionError(f"--plans names {twice} twice. Leave one out.")


def _twice(names: Iterable[str]) -> str | None:
    some = list(names)
    return next((name for name in some if some.count(name) > 1), None)


@dataclass(frozen=True)
class DiagnoseOptions(Options):
    """Which budgets are tried, in sub-layers, and whose texts are followed token by token."""

    step: int = option(4, "N", "Sub-layers between two budgets tried.", least=1)
    budgets_up_to: int | None = option(
        None, "N", "Largest budget. Default: all sub-layers but four, and at most six steps."
    )
    stage: str | None = option(None, "NAME", "Whose texts to follow token by token. Default: the slowest stage.")
    exit: MeanConfidence = option(
        MeanConfidence(), "RULE", "The exit rule that is looked at.", read=mean_confidence, typed="5,0.5"
    )


@dataclass(frozen=True)
class RankOptions(Options):
    """Which rankings and stand-ins are set side by side."""

    ranking: tuple[str, ...] = option(
        ("cosine", "probe", "greedy"),
        "NAME,...",
        "Rankings to try: cosine, cosine_by_stage, cosine_decoded, probe, probe_pooled, greedy, greedy_pooled.",
        read=names,
        typed="cosine,probe,greedy",
    )
    compensation: tuple[str, ...] = option(
        ("none",),
        "KIND,...",
        "What to try in place of a skipped sub-layer: none, norm_ratio, mean, affine, lowrank:16.",
        read=names,
        typed="none",
    )
    step: int = option(2, "N", "Sub-layers between two budgets tried.", least=1)
    answers: bool = option(False, "", "Also answer half the questions with each budget left out of every stage.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.ranking, self.compensation) != (RankOptions.ranking, RankOptions.compensation):
            assert self.policies  # names that are not known are told before a model is loaded

    @property
    def policies(self) -> tuple[Policy, ...]:
        from litestage.jobs.policies import policies_of

        return policies_of(self.ranking, self.compensation)


@dataclass(frozen=True)
class ServeOptions(Options):
    """Where a server listens, what it offers, and what it takes at most."""

    plan: tuple[str, ...] = option((), "NAME=DIR", "Offer a plan folder under a name. Once each.", WHAT)
    host: str = option("127.0.0.1", "NAME", "Address to listen at; 0.0.0.0 takes requests from other machines.", WHERE)
    port: int = option(8000, "N", "Port to listen at; 0 takes a free one.", WHERE, least=0, most=65535)
    api_key_file: str | None = option(
        None, "FILE", "File with the key that clients must send. Default: LITESTAGE_API_KEY, or no key.", WHERE
    )
    allow_skips: bool = option(False, "", "Let requests bring skip sets and exit rules of their own.", WHAT)
    no_page: bool = option(False, "", "Show no page at /.", WHERE)
    drafts: str = option(
        "auto",
        "auto|none|prompt|request|stage",
        "Guess tokens at most from the prompt, the request's other texts, or what all requests wrote before. "
        "Default: request on a processor, none on a GPU.",
    )
    scheduling: str = option(
        "stages", "stages|fcfs", "Who gets a free row: the question furthest on its way, or first come, first served."
    )
    chunk: int = option(
        256, "N", "Prompt tokens of one forward while others decode; 0 takes prompts whole and holds them up.", least=0
    )
    max_requests: int = option(256, "N", "Requests at work or waiting; more are refused.", least=1)
    max_tokens: int = option(1 << 20, "N", "Tokens that they may come to together.", least=1)
    max_body: int = option(1 << 20, "BYTES", "Largest body of a request.", least=1)
    timeout: float = option(300.0, "SECONDS", "Longest that a request may take.", least=0.001)
    grace: int = option(30, "SECONDS", "How long requests may still run after a signal to end.", least=0)


@dataclass(frozen=True)
class ReplicaOptions(Options):
    """How many copies of the model serve on a cluster."""

    min_replicas: int = option(1, "N", "On a cluster: copies of the model that there are at least.", least=1)
    max_replicas: int = option(2, "N", "On a cluster: copies that there are at most.", least=1)
    replica_cpus: int = option(1, "N", "On a cluster: cores of a processor for each copy.", least=1)
    scale_after: float = option(
        10.0,
        "SECONDS",
        "On a cluster: how long there must be more to do than half a batch for each copy, until there is one more. "
        "There is one less after ten times as long with less to do.",
        least=0.1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_replicas < self.min_replicas:
            raise OptionError(
                f"--max-replicas {self.max_replicas} is fewer than --min-replicas {self.min_replicas}. "
                "Give as many, or more."
            )


@dataclass(frozen=True)
class TrainingOptions(Options):
    """What to train, on what, and how it is judged."""

    model: str | None = option(None, "NAME", "Model to fine-tune: short name, folder, .gguf file or hub id.", WHAT)
    adapter: str | None = option(None, "NAME", "An adapter of the model's that learns on: short name or folder.", WHAT)
    plan: str | None = option(None, "DIR", "Heal a plan: learn with its sub-layers left out, as when decoding.", WHAT)
    skip: tuple[str, ...] = option(
        (),
        "STAGE=LAYERS",
        "Skip a set by hand: recall=7.attention,9.ffn. Once a stage; replaces the plan's own set there.",
    )
    recipe: str | None = option(None, "CONFIG", "Recipe: a name or a TOML file. Default: lora.", WHAT)
    init: str | None = option(None, "CONFIG", "Recipe of a model from scratch, instead of --model.", WHAT)
    task: str = option("everyday", "NAME", "Built-in task, or a .toml or .yaml file.", WHAT)
    data: str | None = option(None, "DIR", "Folder with train.jsonl and dev.jsonl.", WHAT)
    limit: int | None = option(None, "N", "Only the first so many questions.", WHAT, least=1)
    epochs: float | None = option(None, "X", "Overrides the recipe's length.")
    order: str | None = option(None, "packed|cycles", "Overrides the recipe's.")
    validation: int = option(100, "N", "Dev questions answered at each validation.")
    checkpoint_every: int = option(50, "N", "Steps that a kill may cost.", least=1)
    threads: int | None = option(None, "N", "Processor threads; all without.", least=1, most=1024)
    seed: int | None = option(None, "N", "Overrides the recipe's.", least=0)
    device: str = option("auto", "NAME", "auto, cpu, cuda or mps.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init and self.recipe:
            raise OptionError("--init and --recipe both name a recipe. Give one: --init for a model from scratch.")
        if self.validation < 0:
            raise OptionError(f"--validation {self.validation}: give 0 for none, or a number of dev questions.")

    @property
    def config(self) -> str:
        """The recipe that was named."""
        return self.init or self.recipe or "lora"

    @property
    def heals(self) -> str:
        """The options that say what is left out; empty when nothing is."""
        plan = [f"--plan {self.plan}"] if self.plan else []
        return " ".join([*plan, *(f"--skip {text}" for text in self.skip)])
