"""What a person works with from Python: everything here is an attribute of `litestage` itself."""

from litestage.core import (
    CalibratedConfidence,
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
from litestage.jobs.compare import compare
from litestage.jobs.diagnose import diagnose
from litestage.jobs.evaluate import evaluate
from litestage.jobs.finetune import finetune
from litestage.jobs.options import (
    CompareOptions,
    DataOptions,
    DecodingOptions,
    DiagnoseOptions,
    EvaluateOptions,
    ModelOptions,
    PlanOptions,
    QuickstartOptions,
    RankOptions,
    SearchSettings,
    TrainingOptions,
)
from litestage.jobs.quickstart import quickstart
from litestage.jobs.rankings import rank
from litestage.jobs.search import search
from litestage.jobs.session import Session, load
from litestage.tasks import Question, Task

__all__ = [
    "CalibratedConfidence",
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
    "compare",
    "diagnose",
    "evaluate",
    "finetune",
    "load",
    "quickstart",
    "rank",
    "search",
]
