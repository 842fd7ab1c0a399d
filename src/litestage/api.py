"""What a person works with from Python: everything here is an attribute of `litestage` itself."""

from litestage.core import (
    CalibratedConfidence,
    Certificate,
    LitestageError,
    MeanConfidence,
    MeanEntropy,
    Plan,
    SettledAnswer,
    SkipSchedule,
    StagePlan,
    SubLayer,
    Trace,
    UserError,
)
from litestage.jobs.answer import answer
from litestage.jobs.certify import certify_change as certify
from litestage.jobs.compare import compare
from litestage.jobs.diagnose import diagnose
from litestage.jobs.evaluate import evaluate
from litestage.jobs.finetune import finetune
from litestage.jobs.options import (
    ChangeOptions,
    ClusterOptions,
    CompareOptions,
    DataOptions,
    DecodingOptions,
    DiagnoseOptions,
    EvaluateOptions,
    ModelOptions,
    PlanOptions,
    PriceOptions,
    QuickstartOptions,
    RankOptions,
    SearchSettings,
    TrainingOptions,
)
from litestage.jobs.price import price_search as price
from litestage.jobs.quickstart import quickstart
from litestage.jobs.rankings import rank
from litestage.jobs.search import search
from litestage.jobs.session import Session, load
from litestage.tasks import Question, Task

__all__ = [
    "CalibratedConfidence",
    "Certificate",
    "ChangeOptions",
    "ClusterOptions",
    "CompareOptions",
    "DataOptions",
    "DecodingOptions",
    "DiagnoseOptions",
    "EvaluateOptions",
    "LitestageError",
    "MeanConfidence",
    "MeanEntropy",
    "ModelOptions",
    "Plan",
    "PlanOptions",
    "PriceOptions",
    "Question",
    "QuickstartOptions",
    "RankOptions",
    "SearchSettings",
    "Session",
    "SettledAnswer",
    "SkipSchedule",
    "StagePlan",
    "SubLayer",
    "Task",
    "Trace",
    "TrainingOptions",
    "UserError",
    "answer",
    "certify",
    "compare",
    "diagnose",
    "evaluate",
    "finetune",
    "load",
    "price",
    "quickstart",
    "rank",
    "search",
]
