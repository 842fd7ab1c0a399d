"""Plans measured on the tasks of lm-evaluation-harness, as a model of its own there.

    python -m litestage.hf.harness run --model litestage --model_args pretrained=everyday,plan=DIR,stage=summary ...

takes what `lm_eval` takes. The model's answers at full depth are those of ``--model hf``. Under a plan, what a request
gives as context is a prompt, and what is scored or written behind it is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from transformers import DynamicCache

from litestage.core import OptionError
from litestage.hf.apply import Run, apply_plan
from litestage.models.load import load_transformers

try:
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM
except ImportError as error:
    raise OptionError(
        "lm-evaluation-harness is not installed, so its tasks cannot be run. Get it by "
        f'`pip install "litestage[harness]"` ({error}).'
    ) from None

Scored = tuple[float, bool]
"""Log-probability of a continuation, and whether it is the one that the model would write."""
Asked = tuple[tuple[str, str], list[int], list[int]]
"""Texts, and token ids of context and continuation."""


@register_model("litestage")
class LitestageLM(HFLM):  # type: ignore[misc]
    """A model under one stage of a plan; further arguments are those of the harness's ``hf``."""

    def __init__(
        self,
        pretrained: str,
        plan: str | None = None,
        stage: str | None = None,
        adapter: str | None = None,
        dtype: str = "fp32",
        **more: Any,
    ) -> None:
        """``pretrained`` and ``adapter`` are what ``--model`` and ``--adapter`` are elsewhere.

        Raises `OptionError` for a plan without a stage, or the reverse.
        """
        if (plan is None) != (stage is None):
            raise OptionError("A plan runs one stage at a time here. Give both plan=DIR and stage=NAME, or neither.")
        model, tokenizer = load_transformers(pretrained, adapter=adapter, dtype=dtype)
        super().__init__(pretrained=model, tokenizer=tokenizer, **more)
        self._planned = None if plan is None or stage is None else (plan, stage)

    def _under_plan(self) -> AbstractContextManager[Run | None]:
        return nullcontext() if self._planned is None else apply_plan(self.model, *self._planned)

    def _model_generate(self, *inputs: Any, **settings: Any) -> Any:
        with self._under_plan():
            return super()._model_generate(*inputs, **settings)

    def _loglikelihood_tokens(self, requests: Sequence[Asked], disable_tqdm: bool = False, **more: Any) -> Any:
        """At full depth as the harness does it, in batches; under a plan one by one, each behind its own prompt."""
        if self._planned is None:
            return super()._loglikelihood_tokens(requests, disable_tqdm, **more)
        with self._under_plan() as run:
            assert run is not None
            return [self._score(run, key, context, continuation) for key, context, continuation in requests]

    @torch.inference_mode()
    def _score(self, run: Run, key: tuple[str, str], context: list[int], continuation: list[int]) -> Scored:
        text = (context + continuation)[-(self.max_length + 1) :]
        run.prompt = max(1, len(text) - len(continuation))
        try:
            ids, cache = torch.tensor([text[:-1]], device=self.device), DynamicCache(config=self.model.config)
            logits = self.model(ids, past_key_values=cache, use_cache=True).logits[0]
        finally:
            run.prompt = None
        told = torch.log_softmax(logits[max(0, len(text) - len(continuation) - 1) :].float(), dim=-1)
        wanted = torch.tensor(text[-len(told) :], device=told.device)
        score = (float(told.gather(1, wanted[:, None]).sum()), bool((told.argmax(-1) == wanted).all()))
        self.cache_hook.add_partial("loglikelihood", key, score)
        return score


if __name__ == "__main__":
    cli_evaluate()
