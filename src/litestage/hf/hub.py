"""A plan as a repository of the hub: the plan, its numbers, a card, and the code that `generate` loads by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from litestage.core import ExitRule, Plan
from litestage.core.files import write_text

GENERATE = '''"""Decode under a litestage plan, by transformers' own `generate`.

    model.generate(**inputs, custom_generate={name}, trust_remote_code=True, stage="{stage}")
"""

from litestage.hf import apply_plan

PLAN = {name}


def generate(model, stage, plan=PLAN, check_plan=True, **arguments):
    """Everything that `generate` takes, and the stage of the plan that the text is of."""
    with apply_plan(model, plan, stage, check=check_plan):
        return model.generate(**arguments)
'''
REQUIREMENTS = "litestage\n"


def write_repository(plan: Plan, source: Path, target: Path, name: str) -> None:
    """Write what a repository called ``name`` holds into ``target``, from the plan's folder ``source``."""
    target.mkdir(parents=True, exist_ok=True)
    plan.save_pretrained(target)
    for numbers in source.glob("compensation-*.safetensors"):
        if target.resolve() != source.resolve():
            shutil.copy(numbers, target / numbers.name)
    code = GENERATE.format(name=json.dumps(name), stage=_first_that_runs(plan))
    write_text(target / "custom_generate" / "generate.py", code)
    write_text(target / "custom_generate" / "requirements.txt", REQUIREMENTS)
    write_text(target / "README.md", card(plan, name))


def card(plan: Plan, name: str) -> str:
    """What a plan saves and costs, whether that is promised, and how to run it; Markdown with the hub's header."""
    stage = _first_that_runs(plan)
    return "\n".join(
        [
            *("---", "library_name: litestage", f"base_model: {json.dumps(plan.model.id)}"),
            *("tags: [layer-skipping, early-exit]", "---", ""),
            *(f"# A plan for {plan.model.id} on the task {plan.task}", ""),
            "Small models answer in stages. This plan says for each stage which attention and FFN sub-layers are left "
            "out while its text is decoded. Prompts run at full depth.",
            *("", *_what_is_left_out(plan), ""),
            *(*_what_it_costs(plan.evidence), ""),
            *(_promise(plan), ""),
            *("## How to run it", "", "```python"),
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "from litestage.hf import apply_plan",
            "",
            "# model and inputs: the base model, and a prompt of the stage",
            f"with apply_plan(model, {json.dumps(name)}, stage={json.dumps(stage)}):",
            "    model.generate(**inputs, max_new_tokens=200)",
            *("```", ""),
            "Or without an import: "
            f"`model.generate(**inputs, custom_generate={json.dumps(name)}, trust_remote_code=True, "
            f"stage={json.dumps(stage)})`. Both need `pip install litestage`.",
            *("", "The plan belongs to these weights alone and is refused on others.", ""),
        ]
    )


def _first_that_runs(plan: Plan) -> str:
    return next((name for name, stage in plan.stages.items() if not stage.left_out), "STAGE")


def _what_is_left_out(plan: Plan) -> Iterator[str]:
    yield from ("| stage | sub-layers left out | what stands in | a text ends early |", "| --- | ---: | --- | --- |")
    for name, stage in plan.stages.items():
        skipped = "the whole stage"
        if not stage.left_out:
            skipped = f"{stage.schedule.num_skipped} of {2 * plan.model.num_blocks}"
        yield f"| {name} | {skipped} | {stage.compensation.kind} | {_exit(stage.exit)} |"


def _exit(rule: ExitRule | None) -> str:
    if rule is None:
        return "no"
    return rule.clause


def _what_it_costs(evidence: Mapping[str, Any]) -> Iterator[str]:
    """What the search measured, on the questions that it chose the plan by."""
    full, chosen = evidence.get("full"), evidence.get("plan")
    if not isinstance(chosen, Mapping):
        yield "The plan carries no measurement."
    elif not isinstance(full, Mapping):  # of a path: the plan beside full depth, on the questions that both answered
        yield (
            f"On {chosen['questions']} questions of the search ({evidence.get('split')}) the plan lost "
            f"{chosen['lost']} answers that full depth has right, and gained {chosen['gained']}. By price it was "
            f"{1 / chosen['pace']:.2f} times as fast."
        )
    else:
        yield (
            f"On the {evidence.get('n')} questions that chose it ({evidence.get('split')}), the model answered "
            f"{full['accuracy']:.1f} % at full depth and {chosen['accuracy']:.1f} % with the plan. A question took "
            f"{full['seconds'] * 1000:.0f} ms at full depth and {chosen['seconds'] * 1000:.0f} ms with the plan."
        )


def _promise(plan: Plan) -> str:
    certificate = plan.certificate
    if certificate is None or not certificate.granted:
        return "The plan is not certified: no bound on its loss was shown on questions that the search never saw."
    return (
        f"The plan is certified. On {certificate.n} questions that nothing had seen it lost {certificate.lost} and "
        f"gained {certificate.gained} answers: it loses less than {certificate.bound:.2f} points, with a "
        f"confidence of {1 - certificate.delta:.0%}."
    )
