"""transformers, timed beside ours: its own `generate`, for steps and for whole questions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from litestage.benchmarks.peers.batches import BatchEngine, Steps
from litestage.core import Completion, Counts, Request, TokenIds
from litestage.core.choices import allowed, probabilities
from litestage.engine import TorchEngine
from litestage.engine.step_times import StepTimes, works_behind


class _Watch(StoppingCriteria):  # type: ignore[misc]
    """Notes the time after every token, and stops nothing."""

    def __init__(self, clock: StepTimes) -> None:
        self.clock = clock

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        if self.clock.times:
            self.clock.note()
        else:
            self.clock.start()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def transformers_steps(model: PreTrainedModel, cache: str, prompts: Sequence[TokenIds]) -> Steps:
    """Of its own greedy `generate`, where the model is; ``cache`` is dynamic or static."""
    return partial(_timed_generate, model, cache, torch.tensor(prompts, device=model.device))


@torch.inference_mode()
def _timed_generate(model: PreTrainedModel, cache: str, ids: torch.Tensor, count: int) -> float:
    """The first token comes from prefill: time begins with it."""
    clock = StepTimes(ids.device, count)
    options: dict[str, Any] = {"cache_implementation": "static"} if cache == "static" else {}
    if not works_behind(ids.device):  # on a processor compiling takes minutes and gains nothing
        options["disable_compile"] = True
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=count + 1,
        min_new_tokens=count + 1,
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([_Watch(clock)]),
        **options,
    )
    return clock.step


class TransformersEngine(BatchEngine):
    """Prompts by transformers' own `generate`: sorted by length, padded on the left.

    Rows end at EOS or a stop string, and a batch when all its rows have ended. An answer by choice is `generate` with
    the tokens that may come next.
    """

    name = "transformers"

    def __init__(self, model: PreTrainedModel, ours: TorchEngine, batch_size: int) -> None:
        super().__init__(ours, batch_size)
        self.model = model

    @torch.inference_mode()
    def _batch(self, requests: Sequence[Request], limit: int) -> list[Completion]:
        width = max(len(request.prompt_ids) for request in requests)
        ids = [[self.eos_id] * (width - len(request.prompt_ids)) + [*request.prompt_ids] for request in requests]
        mask = [[0] * (width - len(request.prompt_ids)) + [1] * len(request.prompt_ids) for request in requests]
        out = self.model.generate(
            torch.tensor(ids, device=self.model.device),
            attention_mask=torch.tensor(mask, device=self.model.device),
            max_new_tokens=limit,
            pad_token_id=self.eos_id,
            eos_token_id=list(self.ours.model.eos_ids),
            stopping_criteria=StoppingCriteriaList([_Stops(self.ours, requests[0].stop, width)]),
            return_dict_in_generate=True,
            **_sampling(requests[0]),
            **_choosing(requests, width, self.eos_id),
        )
        written = [row[width:].tolist() for row in out.sequences]
        return [
            self._completion(request, tokens) if not request.choices else self._chosen(request, tokens, out.logits, row)
            for row, (request, tokens) in enumerate(zip(requests, written, strict=True))
        ]

    def _chosen(self, request: Request, tokens: list[int], logits: Sequence[torch.Tensor], row: int) -> Completion:
        """An answer by choice, with what `generate` saw at its forks."""
        chosen = next(i for i, one in enumerate(request.choices) if list(one) == tokens[: len(one)])
        text = request.choices[chosen]
        asked = []
        for at in range(len(text)):
            if len(only := allowed(request.choices, text[:at])) > 1:
                likely = logits[at][row, only].softmax(-1).tolist()
                asked.append((at, dict(zip(only, likely, strict=True))))
        return Completion(
            token_ids=text,
            text=self.decode(text[:-1]),
            confidences=(1.0,) * len(text),
            finish_reason="eos",
            counts=Counts(prefilled=len(request.prompt_ids), decoded=len(text) - 1),
            choices=probabilities(request.choices, text, asked),
            chosen=chosen,
        )


def _choosing(requests: Sequence[Request], width: int, end: int) -> dict[str, Any]:
    """What `generate` takes of answers by choice; nothing where they are free."""
    if not requests[0].choices:
        return {}

    def may_follow(row: int, ids: torch.Tensor) -> list[int]:
        return allowed(requests[row].choices, ids[width:].tolist()) or [end]

    return {"prefix_allowed_tokens_fn": may_follow, "output_logits": True}


def _sampling(request: Request) -> dict[str, Any]:
    drawn = request.sampling
    if drawn.is_greedy:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": drawn.temperature, "top_k": drawn.top_k, "top_p": drawn.top_p}


class _Stops(StoppingCriteria):  # type: ignore[misc]
    """Ends a row whose last token ends a stop string."""

    def __init__(self, engine: TorchEngine, stop: Sequence[str], width: int) -> None:
        self.engine, self.stop, self.width = engine, stop, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        stops = self.engine.detokeniser.stops
        ended = [stops(row, self.stop) for row in input_ids[:, self.width :].tolist()]
        return torch.tensor(ended, device=input_ids.device)
