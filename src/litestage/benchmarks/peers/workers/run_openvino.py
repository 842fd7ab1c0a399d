"""OpenVINO GenAI with continuous batching and its prefix cache; weights by optimum-intel, rounded by nncf."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from serving import Generate, serve

WEIGHTS = {
    "int8": ["--weight-format", "int8"],
    # All of them, in groups that divide any width that is a multiple of 64.
    "int4": ["--weight-format", "int4", "--group-size", "64", "--ratio", "1.0"],
}
GIGABYTES = 2
"""Of its cache."""


def convert(folder: Path, precision: str) -> Path:
    """The model in its own form, made once beside the folder."""
    made = folder.with_name(f"{folder.name}-openvino-{precision}")
    if not (made / "openvino_model.bin").is_file():
        cli = Path(sys.executable).with_name("optimum-cli")
        task = ["--model", str(folder), "--task", "text-generation-with-past", *WEIGHTS[precision]]
        subprocess.run([str(cli), "export", "openvino", *task, str(made)], check=True)
    return made


def pipeline_of(folder: Path, precision: str, rows: int, threads: int) -> Any:
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = GIGABYTES
    scheduler.max_num_seqs = max(256, rows)
    scheduler.max_num_batched_tokens = 4096
    scheduler.enable_prefix_caching = True
    properties = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    return genai.ContinuousBatchingPipeline(str(convert(folder, precision)), scheduler, "CPU", properties)


def load(settings: dict[str, Any]) -> tuple[str, Generate]:
    import numpy
    import openvino
    import openvino_genai as genai

    pipeline = pipeline_of(Path(settings["folder"]), settings["precision"], settings["rows"], settings["threads"])

    def config(order: dict[str, Any], row: int) -> Any:
        one = genai.GenerationConfig()
        one.max_new_tokens, one.ignore_eos, one.rng_seed = order["tokens"], order["whole"], order["seed"] + row
        if order["whole"]:
            one.min_new_tokens = order["tokens"]
        one.eos_token_id, one.stop_token_ids = order["eos"][0], set(order["eos"])
        one.stop_strings = set(order["stop"])
        if drawn := order["sampling"]:
            one.do_sample, one.temperature, one.top_p = True, drawn["temperature"], drawn["top_p"]
            if drawn["top_k"]:
                one.top_k = drawn["top_k"]
        return one

    def generate(order: dict[str, Any]) -> list[list[int]]:
        inputs = [openvino.Tensor(numpy.array([ids], dtype=numpy.int64)) for ids in order["prompts"]]
        done = pipeline.generate(inputs, [config(order, row) for row in range(len(inputs))])
        return [list(one.m_generation_ids[0]) for one in sorted(done, key=lambda one: one.m_request_id)]

    return openvino.__version__.split("-")[0], generate


if __name__ == "__main__":
    serve(load)
