"""The spine on real (tiny) models: stages, branches, votes, shared prefixes, and the cache around the engine."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from tiny import engine, packed

from litestage.core import (
    Completion,
    DataError,
    Decode,
    Event,
    Finished,
    MeanConfidence,
    NewToken,
    Plan,
    Prefill,
    Request,
    Sampling,
    SkipSchedule,
    StagePlan,
    Trace,
    passes,
)
from litestage.engine import CachedEngine, TorchEngine
from litestage.evaluation import VoteStop, majority, usage_of
from litestage.evaluation.pricing import work_of
from litestage.pipeline import Answering, Spine, Votes, header_of, run
from litestage.pipeline.prompts import WORTH_KEEPING
from litestage.tasks import Question, Task, load_task

QUESTIONS = [
    Question(id="q1", question="Which floats?", choices=("a cork", "a stone"), answer=0),
    Question(id="q2", question="Which of these gives light?", choices=("a candle", "an anvil", "a key"), answer=0),
    Question(id="q3", question="Which is heavy?", choices=("a cork", "an anvil"), answer=1),
]

EXAMPLES = tuple(
    Question(id=name, question=name, choices=("a", "b"), answer=0, targets={"recall": "Ok.", "analysis": ("x.", "y.")})
    for name in ("Is it?", "And now?")
)


def short(task: Task, tokens: int = 6) -> Task:
    """The task with short texts, sampled in the first two stages."""
    stages = tuple(stage.model_copy(update={"max_new_tokens": tokens}) for stage in task.stages)
    return task.model_copy(update={"stages": stages})


@pytest.fixture
def task() -> Task:
    return short(load_task("three_stage"))


def full(used: TorchEngine | CachedEngine, task: Task) -> Plan:
    return Plan.full_depth(used.identity, task.name, task.fingerprint)


def texts(traces: Sequence[Trace]) -> list[list[tuple[str, ...]]]:
    return [[tuple(c.text for c in stage.completions) for stage in trace.stages] for trace in traces]


def test_later_prompts_hold_what_earlier_stages_wrote(task: Task) -> None:
    used = engine()
    (trace,) = run(used, task, QUESTIONS[1:2], full(used, task))
    recall, analysis, summary = trace.stages
    assert recall.prompts == ("Which of these gives light?\n(A) a candle (B) an anvil (C) a key\nRecall:",)
    assert analysis.prompts[2] == recall.prompts[0] + f" {recall.text}\nAnalyze: For option C,"
    assert len(analysis.completions) == 3
    assert summary.prompts == (recall.prompts[0] + f" {recall.text}\nAnalyze: {analysis.text}\nSummarize:",)
    assert recall.text.endswith((".", '"', "'"))
    assert trace.answer is None
    assert trace.gold == 0


def test_groups_do_not_change_texts(task: Task) -> None:
    alone = [run(engine(batch_size=2), task, [q], full(engine(), task))[0] for q in QUESTIONS]
    together = run(engine(batch_size=3), task, QUESTIONS, full(engine(), task), questions_at_once=3)
    assert texts(together) == texts(alone)
    assert [trace.question_id for trace in together] == ["q1", "q2", "q3"]


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("skipped", [None, "recall", "analysis"])
def test_counted_work_is_the_work_done(shots: int, exact: bool, skipped: str | None) -> None:
    """One question at a time, the engine runs the very forwards that pricing counts; the header is prefilled once, and
    text that full depth wrote not at all, where its keys are those of a prefill."""
    task = short(load_task("three_stage")).model_copy(update={"shots": EXAMPLES[:shots]})
    used = TorchEngine(packed()) if exact else engine()
    stages = {skipped: StagePlan(schedule=SkipSchedule.fixed(["1.ffn"]))} if skipped else {}
    plan = full(used, task).model_copy(update={"stages": stages})
    run(used, task, QUESTIONS[:1], plan)
    used.forget([header_of(used, task, stage) for stage in task.stages])
    done: list[Prefill | Decode] = []
    used.on_pass = done.append
    (trace,) = run(used, task, QUESTIONS[2:], plan)
    expected: list[Prefill | Decode] = []
    for stage in trace.stages:
        work = work_of(stage)
        expected += [*passes(work.prefix, 8), *passes(work.rows, 8)]
    assert done == expected
    assert (trace.stages[0].header_tokens >= WORTH_KEEPING) == bool(shots)
    assert shots or trace.stages[2].reused_tokens > 0, "stages continue each other's prompts"


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("skipped", [None, "recall", "analysis", "summary"])
def test_counted_work_of_answers_by_choice(exact: bool, skipped: str | None) -> None:
    """Tokens that are taken without asking cost no forward; also where a later stage goes on from such a text."""
    task = load_task("three_stage")
    recall, analysis, summary = short(task).stages
    told = recall.model_copy(update={"one_of": "It is {choice}."})
    task = task.model_copy(update={"stages": (told, analysis, summary)}).answering("choice")
    used = TorchEngine(packed()) if exact else engine()
    stages = {skipped: StagePlan(schedule=SkipSchedule.fixed(["1.ffn"]))} if skipped else {}
    plan = full(used, task).model_copy(update={"stages": stages})
    done: list[Prefill | Decode] = []
    used.on_pass = done.append
    (trace,) = run(used, task, QUESTIONS[2:], plan)
    expected: list[Prefill | Decode] = []
    for stage in trace.stages:
        work = work_of(stage)
        expected += [*passes(work.prefix, 8), *passes(work.rows, 8)]
    assert done == expected
    fresh = TorchEngine(packed()) if exact else engine()
    again = run(fresh, task, [*QUESTIONS, *QUESTIONS[2:]], plan)[-1]
    assert texts([again]) == texts([trace]), "what was not run is nowhere held as if it had been"
    assert again == trace or not exact, "in fp32 up to the last bits"
    assert trace.answer == trace.stages[-1].completions[0].chosen is not None
    assert trace.choices[trace.answer] == max(trace.choices)
    assert trace.margin == pytest.approx(abs(trace.choices[0] - trace.choices[1]))


def test_votes_differ_and_are_the_same_whatever_runs_beside_them(task: Task) -> None:
    task = task.model_copy(
        update={"stages": tuple(s.model_copy(update={"sampling": Sampling(temperature=1.5)}) for s in task.stages)}
    )
    five = run(engine(), task, QUESTIONS, full(engine(), task), Votes(5, 3))
    assert [(t.question_id, t.vote) for t in five] == [(q.id, v) for q in QUESTIONS for v in range(5)]
    assert len({str(texts([t])) for t in five[:5]}) > 1
    two = run(engine(batch_size=3), task, QUESTIONS[1:2], full(engine(), task), Votes(2, 3))
    assert texts(two) == texts(five[5:7])
    assert texts(run(engine(), task, QUESTIONS[1:2], full(engine(), task), Votes(2, 4))) != texts(two)


def test_votes_that_stop_are_the_first_of_those_that_do_not(task: Task) -> None:
    """Same texts, same majority, fewer votes."""
    lettered = task.model_copy(update={"answer_pattern": r"([A-C])"})
    whole = run(engine(), lettered, QUESTIONS, full(engine(), lettered), Votes(7, 3))
    stop = VoteStop(kind="decided", votes=7)
    some = run(engine(batch_size=3), lettered, QUESTIONS, full(engine(), lettered), Votes(7, 3, stop))
    assert len(some) < len(whole)
    by_vote = {(trace.question_id, trace.vote): trace for trace in whole}
    assert texts(some) == texts([by_vote[trace.question_id, trace.vote] for trace in some])
    for question in QUESTIONS:
        answers = [[t.answer for t in traces if t.question_id == question.id] for traces in (some, whole)]
        assert majority(answers[0]) == majority(answers[1])


def test_the_prompt_of_all_votes_is_prefilled_once(task: Task) -> None:
    traces = run(engine(), task, QUESTIONS[:1], full(engine(), task), Votes(4))
    recalls = [trace.stages[0].completions[0].counts for trace in traces]
    assert sorted(c.prefilled for c in recalls) == [0, 0, 0, recalls[0].prefilled + recalls[0].reused]


def test_a_plan_reaches_its_stage_alone(task: Task) -> None:
    plan = full(engine(), task).model_copy(
        update={"stages": {"analysis": StagePlan(schedule=SkipSchedule.fixed(["0.attention", "2.ffn"]))}}
    )
    before, after = (run(engine(), task, QUESTIONS, p) for p in (full(engine(), task), plan))
    assert [t[0] for t in texts(before)] == [t[0] for t in texts(after)]
    assert [t[1] for t in texts(before)] != [t[1] for t in texts(after)]


def test_a_stage_that_a_plan_leaves_out_is_not_run_and_later_prompts_go_without_it(task: Task) -> None:
    """As the task without that stage, but for the place that it keeps in the trace."""
    used = engine()
    stages = {name: StagePlan(left_out=name == "recall") for name in task.stage_names}
    plan = full(used, task).model_copy(update={"stages": stages})
    shorter = task.without("recall")
    found = run(used, task, QUESTIONS, plan)
    apart = run(used, shorter, QUESTIONS, full(used, shorter))
    assert [[stage.name for stage in trace.stages] for trace in found] == [list(task.stage_names)] * len(QUESTIONS)
    assert all(trace.stages[0].completions == () for trace in found)
    assert [trace.stages[1:] for trace in found] == [trace.stages for trace in apart]
    assert [trace.answer for trace in found] == [trace.answer for trace in apart]
    assert usage_of(found).stages[0].generated_tokens == 0
    assert work_of(found[0].stages[0]).rows == ()


def test_whoever_steps_the_engine_drives_questions_as_run_does(task: Task) -> None:
    """Each is at a stage of its own, with a plan of its own, in one batch; one has one more vote than the others."""
    used = TorchEngine(packed())
    skipping = full(used, task).model_copy(
        update={"stages": {"analysis": StagePlan(schedule=SkipSchedule.fixed(["1.ffn"]))}}
    )
    asked = [(QUESTIONS[0], full(used, task), 0), (QUESTIONS[1], skipping, 0), (QUESTIONS[2], full(used, task), 1)]
    under_way = [Spine(used, task, plan, Votes(2, seed=3)).start(question, vote) for question, plan, vote in asked]
    expected: dict[int, tuple[Answering, list[int]]] = {}
    done: dict[int, Completion] = {}

    def ask(one: Answering) -> None:
        ids = [used.add(request) for request in one.requests()]
        expected.update(dict.fromkeys(ids, (one, ids)))

    for one in under_way:
        ask(one)
        used.step()
        used.step()
    while expected:
        for event in used.step():
            if isinstance(event, Finished):
                done[event.id] = event.completion
                one, ids = expected.pop(event.id)
                if all(id in done for id in ids):
                    one.take([done[id] for id in ids])
                    if one.stage:
                        ask(one)
    for one, (question, plan, vote) in zip(under_way, asked, strict=True):
        assert one.trace() == run(used, task, [question], plan, Votes(2, 3))[vote]


def test_an_answer_beyond_the_choices_does_not_count() -> None:
    task = load_task("three_stage")
    assert task.parse("So the answer is option C.", QUESTIONS[0]) is None
    assert task.parse("So the answer is option B.", QUESTIONS[0]) == 1


def test_a_question_longer_than_the_context_is_named(task: Task) -> None:
    long = Question(id="endless", question="word " * 400, choices=("a", "b"), answer=0)
    with pytest.raises(DataError, match=r"Question endless: its recall prompt has \d+ tokens"):
        run(engine(), task, [long], full(engine(), task))


def test_a_prompt_that_earlier_stages_made_too_long_is_a_wrong_answer(task: Task) -> None:
    """Skipping may make a model ramble: the question counts as wrong, and the others go on."""
    rambling = task.model_copy(
        update={"stages": tuple(stage.model_copy(update={"max_new_tokens": 80}) for stage in task.stages)}
    )
    traces = run(engine(), rambling, QUESTIONS, full(engine(), rambling))
    assert {trace.stages[2].completions[0].finish_reason for trace in traces} == {"no_room"}
    assert [trace.answer for trace in traces] == [None] * 3
    for trace in traces:
        assert trace.stages[2].prompt_tokens == (0,)
        assert trace.stages[2].prompts[0].endswith("Summarize:")
        assert len(trace.stages[1].completions[0].token_ids) > 10
        assert not list(passes(work_of(trace.stages[2]).rows, 4))


def test_behind_a_stage_without_room_nothing_runs(task: Task) -> None:
    """Though a last prompt that leaves the long text out would fit, and its text could hold an answer."""
    used = engine()
    rambling = [stage.model_copy(update={"max_new_tokens": 80}) for stage in task.stages]
    verdict = rambling[2].model_copy(update={"name": "verdict", "prompt": "{question}"})
    task = task.model_copy(update={"answer_pattern": r"([A-C])", "stages": (*rambling, verdict)})
    for trace in run(used, task, QUESTIONS, full(used, task)):
        assert [stage.no_room for stage in trace.stages] == [False, False, True, True]
        assert not list(passes(work_of(trace.stages[3]).rows, 4))
        assert (trace.answer, trace.correct) == (None, False)


class TestCache:
    def test_equal_work_is_decoded_once_and_survives_the_process(self, task: Task, tmp_path: Path) -> None:
        first = CachedEngine(engine(), tmp_path / "c.sqlite")
        traces = run(first, task, QUESTIONS, full(first, task))
        first.close()
        second = CachedEngine(engine(), tmp_path / "c.sqlite")
        assert run(second, task, QUESTIONS, full(second, task)) == traces
        assert second.decoded == 0
        assert second.answered == sum(len(stage.completions) for trace in traces for stage in trace.stages)

    def test_only_what_is_downstream_of_a_change_is_decoded_again(self, task: Task) -> None:
        cached = CachedEngine(engine())
        run(cached, task, QUESTIONS, full(cached, task))
        before = cached.decoded
        plan = full(cached, task).model_copy(
            update={"stages": {"summary": StagePlan(schedule=SkipSchedule.fixed(["1.ffn"]))}}
        )
        run(cached, task, QUESTIONS, plan)
        assert cached.decoded - before == len(QUESTIONS)

    def test_the_cache_equals_the_engine_also_when_part_of_a_call_is_known(self, task: Task) -> None:
        plan = full(engine(), task).model_copy(
            update={"stages": {"recall": StagePlan(exit=MeanConfidence(window=2, threshold=0.5))}}
        )
        cached = CachedEngine(engine())
        run(cached, task, QUESTIONS[1:2], plan)
        assert texts(run(cached, task, QUESTIONS, plan)) == texts(run(engine(), task, QUESTIONS, plan))

    @pytest.mark.parametrize(("window", "threshold"), [(1, 0.3), (2, 0.6), (4, 0.45), (6, 0.9), (3, 0.0)])
    def test_a_text_with_exit_is_cut_from_the_one_without(self, task: Task, window: int, threshold: float) -> None:
        exit_everywhere = StagePlan(exit=MeanConfidence(window=window, threshold=threshold))
        plan = full(engine(), task).model_copy(update={"stages": dict.fromkeys(task.stage_names, exit_everywhere)})
        cached = CachedEngine(engine())
        run(cached, task, QUESTIONS, full(cached, task))
        before = cached.decoded
        direct = run(engine(), task, QUESTIONS, plan)
        assert texts(run(cached, task, QUESTIONS, plan)) == texts(direct)
        recalls = [trace.stages[0].completions[0] for trace in direct]
        assert any(c.finish_reason == "low_confidence" for c in recalls) == (threshold > 0)
        known = [trace.stages[0].completions[0] for trace in run(cached, task, QUESTIONS, plan)]
        assert [(c.token_ids, c.finish_reason, c.counts.decoded) for c in known] == [
            (c.token_ids, c.finish_reason, c.counts.decoded) for c in recalls
        ]
        assert cached.decoded - before <= sum(len(s.completions) for t in direct for s in t.stages[1:]), "no recall"

    def test_tokens_are_told_for_known_and_repeated_requests_alike(self, task: Task) -> None:
        used, plan = engine(), full(engine(), task)
        cached = CachedEngine(used)
        run(cached, task, QUESTIONS[:1], plan)
        heard: dict[int, list[int]] = {}
        requests = [
            Request(prompt_ids=used.encode(f"{text}\nRecall:"), max_new_tokens=6)
            for text in ("Which floats?\n(A) a cork (B) a stone", "Is it?", "Is it?")
        ]

        def hear(event: Event) -> None:
            if isinstance(event, NewToken):
                heard.setdefault(event.id, []).append(event.token)

        done = cached.generate(requests, hear)
        assert [tuple(heard[i]) for i in range(3)] == [completion.token_ids for completion in done]

    def test_other_weights_or_conditions_share_nothing(self, task: Task, tmp_path: Path) -> None:
        path = tmp_path / "c.sqlite"
        run(CachedEngine(engine(), path, "fp32"), task, QUESTIONS[:1], full(engine(), task))
        other = CachedEngine(engine(), path, "bf16")
        run(other, task, QUESTIONS[:1], full(engine(), task))
        assert other.answered == 0

    def test_a_file_that_is_no_cache_is_said(self, tmp_path: Path) -> None:
        from litestage.core import LitestageError

        path = tmp_path / "c.sqlite"
        path.write_bytes(b"not a database" * 100)
        with pytest.raises(LitestageError, match="cannot be used to keep completions"):
            CachedEngine(engine(), path)
        with pytest.raises(sqlite3.DatabaseError):
            sqlite3.connect(path).execute("SELECT 1 FROM completions")

    def test_a_file_that_is_damaged_behind_its_beginning_is_said(self, tmp_path: Path) -> None:
        from litestage.core import LitestageError

        path = tmp_path / "c.sqlite"
        requests = [Request(prompt_ids=(1, 2, *divmod(i, 50)), max_new_tokens=4) for i in range(200)]
        first = CachedEngine(engine(), path)
        first.generate(requests)
        first.close()
        whole = path.read_bytes()
        path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))
        with pytest.raises(LitestageError, match=r"c.sqlite cannot be used to keep completions \(.*malformed\)"):
            CachedEngine(engine(), path).generate(requests)
        path.write_bytes(whole.replace(b'"token_ids"', b'"taken_ids"'))
        with pytest.raises(LitestageError, match=r"\(a completion there: taken_ids is not a field there\). Delete it"):
            CachedEngine(engine(), path).generate(requests)
