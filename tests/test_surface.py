"""What `litestage` exports, with signatures: a change here is one for everybody who uses it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields, is_dataclass

import pytest

import litestage
from litestage import api
from litestage.core import OptionError

FUNCTIONS = {
    "answer": "(session, question, plan=None, *, on_text=None, on_stage=None)",
    "certify": "(session, change, questions=None, *, max_drop=3.0)",
    "compare": "(session, options=CompareOptions(), *, split='test', limit=200)",
    "diagnose": "(session, options=DiagnoseOptions(), questions=None)",
    "evaluate": "(session, plan=None, questions=None, options=EvaluateOptions())",
    "finetune": "(options, out, progress=SILENT)",
    "load": "(model='everyday', task='everyday', *, out=None, progress=SILENT, **options)",
    "price": "(session, plan, options=PriceOptions())",
    "quickstart": "(session, settings=SearchSettings(), sizes=QuickstartOptions(), *, limit=300)",
    "rank": "(session, options=RankOptions(), questions=None)",
    "search": "(session, settings=SearchSettings(), questions=None, *, split='dev')",
}
RECORDS = {
    "ChangeOptions": "plan skip exit no_exit to_quantise to_adapter without",
    "ClusterOptions": "batch_size workers seed cluster price_on",
    "CompareOptions": "methods blocks max_drops plans search_limit wall full step exit exits",
    "DataOptions": "task data split limit shots answering",
    "DecodingOptions": "batch_size workers seed",
    "DiagnoseOptions": "step budgets_up_to stage exit",
    "EvaluateOptions": "votes votes_stop votes_confidence latency",
    "ModelOptions": "name adapter device dtype quantise",
    "PlanOptions": "plan skip exit no_exit",
    "PriceOptions": "batch_size",
    "QuickstartOptions": "search_limit certify wall",
    "RankOptions": "ranking compensation step answers",
    "SearchSettings": "max_drop latency_target certify step exhaustive preset plans levers ranking compensation exit "
    "exits no_exit search_exit latency",
    "TrainingOptions": "model adapter plan skip recipe init task data limit epochs order validation checkpoint_every "
    "threads seed device",
}
NOUNS = (
    *("CalibratedConfidence", "Certificate", "LitestageError", "MeanConfidence", "MeanEntropy", "Plan", "Question"),
    *("SettledAnswer", "Session", "SkipSchedule", "StagePlan", "SubLayer", "Task", "Trace", "UserError"),
)
SESSION = (
    *("answer", "at", "capacity", "chosen_plan", "conditions", "conditions_at", "dev_and_test", "drafter", "drafting"),
    *("full_plan", "inside", "load_plan", "may_show_texts", "narrow", "plan", "questions", "settle", "stored", "timed"),
    "workers",
)


def shown(function: object) -> str:
    """Its parameters with their defaults, a record's by its name; without types, which mypy holds."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty, default=_Shown(parameter.default))
        if parameter.default is not inspect.Parameter.empty
        else parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    return str(inspect.Signature(parameters))


class _Shown:
    def __init__(self, value: object) -> None:
        self.value = value

    def __repr__(self) -> str:
        if type(self.value).__name__ == "Silent":
            return "SILENT"
        return f"{type(self.value).__name__}()" if is_dataclass(self.value) else repr(self.value)


def test_what_is_exported() -> None:
    assert set(api.__all__) == {*FUNCTIONS, *RECORDS, *NOUNS}
    assert {name for name in dir(litestage) if name in api.__all__} == set(api.__all__)
    for name in api.__all__:
        assert getattr(litestage, name) is getattr(api, name)
        assert getattr(api, name).__doc__, name
    with pytest.raises(AttributeError, match="serach"):
        litestage.serach  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_signature_of(name: str) -> None:
    assert shown(getattr(litestage, name)) == FUNCTIONS[name]


def test_the_fields_of_records_and_what_a_session_offers() -> None:
    assert {name: " ".join(one.name for one in fields(getattr(api, name))) for name in RECORDS} == RECORDS
    assert tuple(sorted(name for name in vars(api.Session) if not name.startswith("_"))) == SESSION


def test_a_record_with_a_wrong_value_says_which() -> None:
    for record, changes, says in (
        (api.ModelOptions, {"dtype": "fp8"}, r"--dtype fp8 is not known\. .*fp32 or bf16"),
        (api.DecodingOptions, {"batch_size": 0}, "--batch-size 0 is too small"),
        (api.PlanOptions, {"exit": api.MeanConfidence(), "no_exit": True}, "contradict"),
        (api.SearchSettings, {"ranking": ("cosin",)}, "--ranking cosin is not known"),
        (api.SearchSettings, {"max_drop": 101.0}, "--max-drop 101"),
        (api.EvaluateOptions, {"votes_stop": "likely"}, "needs several votes"),
    ):
        with pytest.raises(OptionError, match=says):
            record(**changes)
    with pytest.raises(OptionError, match=r"batchsize is no option of load\. Did you mean batch_size"):
        litestage.load(batchsize=2)


def test_importing_loads_no_model_library_and_the_job_search_stays_itself() -> None:
    """Whoever imports the room of that name: `litestage.search` is what a person calls."""
    script = (
        "import sys, litestage, litestage.cli, litestage.search.greedy\n"
        "heavy = {'torch', 'transformers', 'pandas', 'scipy', 'altair', 'ray'}\n"
        "assert not heavy & set(sys.modules), 'loaded at once'\n"
        "from litestage.search import search_budgets\n"
        "assert litestage.search.__name__ == 'search' and callable(litestage.search)\n"
        "from litestage import search\n"
        "assert search is litestage.search\n"
        "assert sys.modules['litestage.search'].search_budgets is search_budgets\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
