"""What the answers and the seconds are worth: accuracy, votes, paired statistics, usage and the cost model."""

from litestage.evaluation.accuracy import (
    Accuracy,
    StoppedVotes,
    VoteAccuracy,
    accuracy_of,
    majority,
    question_scores,
    score,
    stopped_accuracy,
    vote_accuracy,
)
from litestage.evaluation.certificate import (
    Outcomes,
    PathVerdict,
    bound,
    certify,
    down_path,
    look_early,
    outcomes,
    p_value,
    questions_hash,
    questions_needed,
    would_do,
)
from litestage.evaluation.cost_model import CostModel, FitError, Timing, fit
from litestage.evaluation.frontier import FrontierPoint, as_fast, frontier
from litestage.evaluation.paired import Paired, compare, holm, worse
from litestage.evaluation.pricing import Price, StagePrice, price
from litestage.evaluation.timing import PriceError, Sample, Speedup, medians, price_error, skip_efficiency, speedup
from litestage.evaluation.usage import StageUsage, Usage, usage_of
from litestage.evaluation.votes import VoteStop

__all__ = [
    "Accuracy",
    "CostModel",
    "FitError",
    "FrontierPoint",
    "Outcomes",
    "Paired",
    "PathVerdict",
    "Price",
    "PriceError",
    "Sample",
    "Speedup",
    "StagePrice",
    "StageUsage",
    "StoppedVotes",
    "Timing",
    "Usage",
    "VoteAccuracy",
    "VoteStop",
    "accuracy_of",
    "as_fast",
    "bound",
    "certify",
    "compare",
    "down_path",
    "fit",
    "frontier",
    "holm",
    "look_early",
    "majority",
    "medians",
    "outcomes",
    "p_value",
    "price",
    "price_error",
    "question_scores",
    "questions_hash",
    "questions_needed",
    "score",
    "skip_efficiency",
    "speedup",
    "stopped_accuracy",
    "usage_of",
    "vote_accuracy",
    "worse",
    "would_do",
]
