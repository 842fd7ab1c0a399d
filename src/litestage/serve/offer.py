"""What a server has: one model, one task, and plans by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litestage.core import LitestageError, Plan, StagePlan, TokenIds, names
from litestage.core.complaints import did_you_mean
from litestage.core.drafts import SOURCES, DraftSource
from litestage.engine import TorchEngine
from litestage.jobs.session import Session
from litestage.serve.errors import ApiError
from litestage.serve.protocol import ByHand, ChatMessage, StagedSettings
from litestage.tasks import Task

FULL = "full"
"""The plan that leaves nothing out, by name."""
SHOWN = 40
"""Questions that a page may take."""
LONG = 1 << 14
"""Characters of a text from which on its tokens are not remembered."""


class Offer:
    """A session with its plans; a model's name is ``TASK``, ``TASK:PLAN`` or, without stages, the model's own."""

    def __init__(self, session: Session, plans: Mapping[str, Plan], allow_skips: bool) -> None:
        self.session, self.allow_skips = session, allow_skips
        self.plans = {FULL: session.full_plan()} | dict(plans)
        own = Path(session.engine.identity.id).name
        self.bare = own if own != self.task.name else f"{own}-base"
        """The model's name where it writes a text without stages."""
        embedded = session.questions("test", SHOWN) if session.may_show_texts else []
        self.examples = [{"question": one.question, "choices": one.choices} for one in embedded]
        """Questions that may be shown to anybody."""

    @property
    def task(self) -> Task:
        return self.session.task

    @property
    def drafts(self) -> tuple[DraftSource, ...]:
        """From what a request may be drafted; the last is what it gets if it says nothing."""
        drafter = self.session.drafter
        return SOURCES[: 1 + SOURCES.index("none" if drafter is None else drafter.source)]

    @property
    def engine(self) -> TorchEngine:
        return self.session.engine

    @property
    def models(self) -> dict[str, Plan | None]:
        """Names of models, the task's own first; a bare one has no plan."""
        named = {f"{self.task.name}:{name}": plan for name, plan in self.plans.items()}
        return {self.task.name: self.plans[FULL]} | named | {self.bare: None}

    def is_bare(self, model: str) -> bool:
        """Whether a name is the bare model's; raises `ApiError` for one that is not known."""
        if model not in self.models:
            raise ApiError(
                404,
                f"There is no model {model!r} here.{did_you_mean(model, self.models)} "
                f"Those there are: {', '.join(self.models)}.",
                param="model",
                code="model_not_found",
            )
        return model == self.bare

    def plan(self, model: str, settings: StagedSettings) -> tuple[str, Plan]:
        """The name of a staged model's plan, and the plan with what the client puts over it."""
        _, _, by_model = model.partition(":")
        if by_model and settings.plan not in (None, by_model):
            raise ApiError(
                400, f"model says plan {by_model!r} and litestage.plan says {settings.plan!r}.", param="litestage.plan"
            )
        name = by_model or settings.plan or FULL
        if name not in self.plans:
            raise ApiError(
                404,
                f"There is no plan {name!r} here.{did_you_mean(name, self.plans)} "
                f"Those there are: {', '.join(self.plans)}.",
                param="litestage.plan",
                code="plan_not_found",
            )
        plan = self.plans[name]
        if not settings.stages:
            return name, plan
        stages = dict(plan.stages)
        for stage, by_hand in settings.stages.items():
            if stage not in stages:
                raise ApiError(
                    400,
                    f"Task {self.task.name} has no stage {stage!r}. Its stages are {', '.join(stages)}.",
                    param="litestage.stages",
                )
            stages[stage] = self.by_hand(by_hand, f"litestage.stages.{stage}")
        return f"{name} with stages by hand", plan.model_copy(update={"stages": stages, "certificate": None})

    def by_hand(self, given: ByHand, param: str) -> StagePlan:
        """A stage plan that a client brings; raises `ApiError` where it may not, or where it does not fit."""
        if (given.skip or given.exit) and not self.allow_skips:
            raise ApiError(
                403,
                f"{param} brings skip sets or exit rules of its own, which this server does not take: it was started "
                "without --allow-skips. Name one of its plans.",
                param=param,
                code="skips_not_allowed",
            )
        try:
            given.schedule.check_fits(self.engine.identity.num_blocks)
        except LitestageError as error:
            raise ApiError(400, f"{param}: {error}", param=param) from None
        return StagePlan(schedule=given.schedule, exit=given.exit)

    def encode(self, text: str) -> TokenIds:
        """Token ids of a bare prompt; long ones are not remembered."""
        return self.engine.encode(text) if len(text) < LONG else self.engine.model.prompts.encode([text])[0]

    def encode_chat(self, messages: list[ChatMessage]) -> TokenIds:
        """A conversation in the model's chat template, ready for its answer."""
        tokenizer = self.engine.model.tokenizer
        if not tokenizer.chat_template:
            raise ApiError(
                400, f"{self.bare} has no chat template. Ask it by /v1/completions.", param="model", code="no_template"
            )
        turns = [{"role": one.role, "content": one.text} for one in messages]
        try:
            text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # a template is a program of others, and raises whatever it goes wrong with
            raise ApiError(
                400, f"The chat template of {self.bare} cannot write these messages: {error}", param="messages"
            ) from None
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    def check_ids(self, ids: TokenIds) -> TokenIds:
        """Token ids that a client brings; raises `ApiError` for one that the model does not have."""
        most = self.engine.model.decoder.embedding.shape[0]
        if wrong := [one for one in ids if not 0 <= one < most]:
            raise ApiError(400, f"prompt has token {wrong[0]}; the model's are 0 to {most - 1}.", param="prompt")
        return ids

    def room(self, ids: TokenIds, param: str) -> int:
        """Tokens that the context leaves behind a prompt; raises `ApiError` where there is none."""
        most = self.engine.max_context
        if not 0 < len(ids) < most:
            raise ApiError(
                400,
                f"{param} has {len(ids)} tokens; {self.bare} takes 1 to {most - 1}, with room for one more.",
                param=param,
                code="context_length_exceeded",
            )
        return most - len(ids)

    def label(self, token: int) -> str:
        """What a token is told by, as OpenAI has it: its own text, or the bytes of a part of a character."""
        text, raw = self.engine.detokeniser.piece(token), self.engine.detokeniser.raw(token)
        return text if text.encode() == raw else "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def describe(self, name: str, plan: Plan | None) -> dict[str, Any]:
        """What ``/v1/models`` says of a model besides OpenAI's fields."""
        limits = {"max_context": self.engine.max_context, "rows": self.engine.batch_size}
        if plan is None:
            return {"kind": "text", "limits": limits, "chat": bool(self.engine.model.tokenizer.chat_template)}
        return {
            "kind": "staged",
            "task": self.task.name,
            "plan": name.partition(":")[2] or FULL,
            "blocks": self.engine.identity.num_blocks,
            "stages": {
                stage.name: {
                    "skipped": [
                        {"first_step": segment.first_step, "sub_layers": names(segment.skipped)}
                        for segment in plan.stage(stage.name).schedule.segments
                    ],
                    "compensation": plan.stage(stage.name).compensation.kind,
                    "exit": rule.model_dump() if (rule := plan.stage(stage.name).exit) else None,
                    "branches": stage.fan_out,
                    "max_new_tokens": stage.max_new_tokens,
                }
                for stage in self.task.stages
            },
            "certificate": plan.certificate.model_dump(mode="json") if plan.certificate else None,
            "limits": limits | {"most_choices": 26},
        }
