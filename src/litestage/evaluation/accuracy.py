"""How often the answers are right: accuracy in percent, its interval, and votes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student_t

from litestage.core.errors import DataError, OptionError
from litestage.core.layers import Record
from litestage.core.trace import Trace

CONFIDENCE_LEVEL = 0.95


class Accuracy(Record):
    """Share of right answers in percent, with a 95 % Wilson interval over the questions."""

    n: int
    correct: int
    percent: float
    low: float
    high: float
    none_percent: float
    """None rate: share of answers that did not parse. They count as wrong."""


class VoteAccuracy(Record):
    """Several votes a question: the mean accuracy of a vote, and of majorities."""

    questions: int
    votes: int
    """Votes of the question that has the fewest."""
    percent: float
    """Mean accuracy of one run of the task."""
    runs: int
    correct: int
    """Right runs."""
    standard_error: float | None
    """In points, clustered by question, because votes of one question agree; None for a single question."""
    low: float
    high: float
    none_percent: float
    majority: dict[int, Accuracy]
    """maj@k by k."""

    @property
    def of_runs(self) -> Accuracy:
        """All runs as one accuracy; its interval knows that runs of one question agree."""
        return Accuracy(
            n=self.runs,
            correct=self.correct,
            percent=self.percent,
            low=self.low,
            high=self.high,
            none_percent=self.none_percent,
        )


class StoppedVotes(Record):
    """Votes of which a question draws only as many as a stopping rule asks for.

    A single vote's accuracy cannot be read from them: questions on which votes disagree have more of them.
    """

    questions: int
    votes: int
    """Votes asked for."""
    drawn: float
    """Mean votes drawn a question."""
    majority: Accuracy
    """maj@votes, of what was drawn."""

    @property
    def of_runs(self) -> Accuracy:
        """The majority's: a single run's cannot be told."""
        return self.majority


def accuracy_of(outcomes: Sequence[bool], nones: int = 0) -> Accuracy:
    """Accuracy of one outcome a question; ``nones`` of them did not parse. Raises `DataError` without a question."""
    if not outcomes:
        raise DataError(
            "No question was answered, so there is no accuracy. Give at least one with --data, --split and --limit."
        )
    n, correct = len(outcomes), sum(outcomes)
    interval = binomtest(correct, n).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return Accuracy(
        n=n,
        correct=correct,
        percent=100 * correct / n,
        low=100 * float(interval.low),
        high=100 * float(interval.high),
        none_percent=100 * nones / n,
    )


def score(traces: Sequence[Trace]) -> Accuracy:
    """Accuracy of traces with one vote a question; for several votes see `vote_accuracy`."""
    if any(len(votes) > 1 for votes in votes_by_question(traces).values()):
        raise ValueError("several votes a question are not independent outcomes: use vote_accuracy")
    return accuracy_of([trace.correct for trace in traces], sum(trace.answer is None for trace in traces))


def majority(answers: Sequence[int | None]) -> int | None:
    """The most frequent answer. None votes count; ties go to the first seen."""
    return Counter(answers).most_common(1)[0][0]


def vote_accuracy(traces: Sequence[Trace], ks: Sequence[int]) -> VoteAccuracy:
    """Mean accuracy of a vote, and maj@k for each k in ``ks``."""
    by_question = votes_by_question(traces)
    rights = [[trace.correct for trace in votes] for votes in by_question.values()]
    percent = 100 * sum(map(sum, rights)) / len(traces)
    error = clustered_standard_error(rights)
    margin = 100 if error is None else 100 * error * _errors_aside(len(by_question))
    return VoteAccuracy(
        questions=len(by_question),
        votes=min(map(len, rights)),
        percent=percent,
        runs=len(traces),
        correct=sum(map(sum, rights)),
        standard_error=None if error is None else 100 * error,
        low=max(0.0, percent - margin),
        high=min(100.0, percent + margin),
        none_percent=100 * sum(trace.answer is None for trace in traces) / len(traces),
        majority={k: _majority_accuracy(by_question, k) for k in ks},
    )


def _errors_aside(questions: int) -> float:
    """Standard errors to each side, where the error itself is estimated from so many questions."""
    return float(student_t.ppf((1 + CONFIDENCE_LEVEL) / 2, questions - 1))


def stopped_accuracy(traces: Sequence[Trace], votes: int) -> StoppedVotes:
    """maj@votes where a stopping rule left some votes undrawn."""
    by_question = votes_by_question(traces)
    answers = [(majority([trace.answer for trace in drawn]), drawn[0].gold) for drawn in by_question.values()]
    return StoppedVotes(
        questions=len(by_question),
        votes=votes,
        drawn=len(traces) / len(by_question),
        majority=_accuracy_of_answers(answers),
    )


def clustered_standard_error(clusters: Sequence[Sequence[float]]) -> float | None:
    """Standard error of the mean of all values when those of one cluster depend on each other; None for one cluster.

    Residuals are summed within a cluster before they are squared, with the g / (g - 1) correction for g clusters.
    """
    groups, n = len(clusters), sum(map(len, clusters))
    if groups < 2:
        return None
    mean = sum(map(sum, clusters)) / n
    sums = [sum(value - mean for value in cluster) for cluster in clusters]
    return float(np.sqrt(np.square(sums).sum() * groups / (groups - 1)) / n)


def question_scores(traces: Sequence[Trace]) -> dict[str, float]:
    """Share of right votes (0 to 1) by question id; what `compare` pairs."""
    return {
        question: sum(trace.correct for trace in votes) / len(votes)
        for question, votes in votes_by_question(traces).items()
    }


def votes_by_question(traces: Sequence[Trace]) -> dict[str, list[Trace]]:
    """Each question's traces in vote order; raises `DataError` for none, an unlabelled question or a repeated vote."""
    grouped: dict[str, list[Trace]] = defaultdict(list)
    for trace in sorted(traces, key=lambda trace: trace.vote):
        votes = grouped[trace.question_id]
        if trace.gold is None:
            raise DataError(
                f"Question {trace.question_id} has no right answer, so it cannot be scored. "
                "Give it an answer, or leave it out of the split."
            )
        if votes and votes[-1].vote == trace.vote:
            raise DataError(
                f"Question {trace.question_id} is there twice (vote {trace.vote}), which would count it twice. "
                "Give every question its own id."
            )
        votes.append(trace)
    if not grouped:
        raise DataError("No question was answered. Give at least one with --data, --split and --limit.")
    return {trace.question_id: grouped[trace.question_id] for trace in traces}


def _majority(votes: Sequence[Trace], k: int) -> int | None:
    if not 1 <= k <= len(votes):
        raise OptionError(
            f"maj@{k} needs {k} votes, but question {votes[0].question_id} has {len(votes)}. "
            f"Evaluate with --votes {k}, or ask for a smaller majority."
        )
    return majority([trace.answer for trace in votes[:k]])


def _majority_accuracy(by_question: dict[str, list[Trace]], k: int) -> Accuracy:
    return _accuracy_of_answers([(_majority(votes, k), votes[0].gold) for votes in by_question.values()])


def _accuracy_of_answers(answers: Sequence[tuple[int | None, int | None]]) -> Accuracy:
    """From each question's answer and its right answer."""
    return accuracy_of([answer == gold for answer, gold in answers], sum(answer is None for answer, _ in answers))
