"""The nouns of litestage: frozen, hashable, serialisable, and free of torch."""

from litestage.core.certificate import Certificate
from litestage.core.conditions import Conditions, Machine, RunConditions
from litestage.core.engine import Engine, Event, Failed, Finished, NewText, NewToken, OnEvent, TokenIds, UnansweredError
from litestage.core.errors import DataError, LitestageError, ModelError, OptionError, PlanError, TaskError, UserError
from litestage.core.exits import (
    CalibratedConfidence,
    ExitRule,
    MeanConfidence,
    MeanEntropy,
    SettledAnswer,
    parse_exit,
)
from litestage.core.layers import (
    EMPTY,
    Segment,
    SkipSchedule,
    SkipSet,
    SubLayer,
    names,
    num_runs,
    sub_layers,
    whole_blocks,
)
from litestage.core.plan import (
    COMPENSATIONS,
    FULL_DEPTH,
    Compensation,
    CompensationKind,
    ModelIdentity,
    Plan,
    StagePlan,
)
from litestage.core.ranking import RankedLayer, Ranking
from litestage.core.request import GREEDY, NO_ROOM, Chat, Completion, Counts, FinishReason, Request, Sampling
from litestage.core.rows import Decode, Prefill, Row, passes
from litestage.core.trace import StageTrace, Trace

__all__ = [
    "COMPENSATIONS",
    "EMPTY",
    "FULL_DEPTH",
    "GREEDY",
    "NO_ROOM",
    "CalibratedConfidence",
    "Certificate",
    "Chat",
    "Compensation",
    "CompensationKind",
    "Completion",
    "Conditions",
    "Counts",
    "DataError",
    "Decode",
    "Engine",
    "Event",
    "ExitRule",
    "Failed",
    "FinishReason",
    "Finished",
    "LitestageError",
    "Machine",
    "MeanConfidence",
    "MeanEntropy",
    "ModelError",
    "ModelIdentity",
    "NewText",
    "NewToken",
    "OnEvent",
    "OptionError",
    "Plan",
    "PlanError",
    "Prefill",
    "RankedLayer",
    "Ranking",
    "Request",
    "Row",
    "RunConditions",
    "Sampling",
    "Segment",
    "SettledAnswer",
    "SkipSchedule",
    "SkipSet",
    "StagePlan",
    "StageTrace",
    "SubLayer",
    "TaskError",
    "TokenIds",
    "Trace",
    "UnansweredError",
    "UserError",
    "names",
    "num_runs",
    "parse_exit",
    "passes",
    "sub_layers",
    "whole_blocks",
]
