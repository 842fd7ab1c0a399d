"""A plan as transformers' ``custom_generate``: a way of decoding that is given to `generate` itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation.utils import GENERATION_MODES_MAPPING

from litestage.core import PlanError
from litestage.hf.apply import apply_plan, refuse_guidance
from litestage.hf.folder import PlanFolder

OURS = ("_sample", "_beam_search")
"""Ways of transformers that this one goes about."""


@dataclass(frozen=True)
class PlanDecoding:
    """Decode under a stage's plan: ``model.generate(**inputs, custom_generate=PlanDecoding("runs/plan", "analysis"))``.

    Greedy, sampled or with beams, as the call says. The fields are `apply_plan`'s.
    """

    plan: PlanFolder | str | Path
    stage: str
    check: bool = True

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **more: Any,
    ) -> Any:
        """What `generate` asks of a way of decoding; it has prepared the arguments."""
        way = GENERATION_MODES_MAPPING[generation_config.get_generation_mode()]
        if way not in OURS:
            raise PlanError(
                f"A plan decodes greedily, by sampling or with beams, but this call asks for {way.lstrip('_')}. "
                "Leave its settings out."
            )
        refuse_guidance(generation_config.guidance_scale)
        with apply_plan(model, self.plan, self.stage, check=self.check) as run:
            run.begin({"input_ids": input_ids, **more})
            return getattr(model, way)(
                input_ids,
                logits_processor=LogitsProcessorList([*logits_processor, *run.processors()]),
                stopping_criteria=stopping_criteria,
                generation_config=generation_config,
                **more,
            )
