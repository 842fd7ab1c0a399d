"""ONNX Runtime GenAI on a CPU; weights by its own builder. Its rows begin and end together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from serving import Generate, serve

WEIGHTS = {"int4": ["--extra_options", "int4_accuracy_level=4", "int4_block_size=32"], "fp32": []}
"""Products of int4 weights take inputs of 8 bits, as ours do."""


def convert(folder: Path, precision: str) -> Path:
    """The model in its own form, made once beside the folder."""
    made = folder.with_name(f"{folder.name}-onnxruntime-{precision}")
    if not (made / "genai_config.json").is_file():
        task = ["-i", str(folder), "-o", str(made), "-p", precision, "-e", "cpu", *WEIGHTS[precision]]
        subprocess.run([sys.executable, "-m", "onnxruntime_genai.models.builder", *task], check=True)
    return made


def load(settings: dict[str, Any]) -> tuple[str, Generate]:
    import numpy
    import onnxruntime_genai as genai

    config = genai.Config(str(convert(Path(settings["folder"]), settings["precision"])))
    threads = {"session_options": {"intra_op_num_threads": settings["threads"]}}
    config.overlay(json.dumps({"model": {"decoder": threads}}))
    model = genai.Model(config)

    def generate(order: dict[str, Any]) -> list[list[int]]:
        prompts, tokens = order["prompts"], order["tokens"]
        length = len(prompts[0])
        params = genai.GeneratorParams(model)
        params.set_search_options(
            do_sample=False,
            max_length=length + tokens,
            min_length=length + tokens if order["whole"] else 0,
            batch_size=len(prompts),
        )
        generator = genai.Generator(model, params)
        generator.append_tokens(numpy.array(prompts, dtype=numpy.int32))
        while not generator.is_done():
            generator.generate_next_token()
        return [list(map(int, generator.get_sequence(row)[length:])) for row in range(len(prompts))]

    return genai.__version__, generate


if __name__ == "__main__":
    serve(load)
