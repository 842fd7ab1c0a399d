"""What every answer has around it, in OpenAI's form."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from litestage.serve.offer import Offer
from litestage.serve.protocol import StreamOptions
from litestage.serve.work import Job

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A body that is understood, and how its answer begins."""

    offer: Offer
    model: str
    job: Job
    options: StreamOptions
    chat: bool = True
    number: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self, stream: bool = False) -> Json:
        kind = "chat.completion" if self.chat else "text_completion"
        return {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{self.number}",
            "object": f"{kind}.chunk" if stream and self.chat else kind,
            "created": self.created,
            "model": self.model,
        }

    def chunk(self, index: int, part: Json, reason: str | None = None, logprobs: Json | None = None) -> Json:
        """A piece of a stream: ``part`` is a choice's ``delta`` or ``text``."""
        choice = {"index": index, **part, "logprobs": logprobs, "finish_reason": reason}
        usage = {"usage": None} if self.options.include_usage else {}
        return self.head(stream=True) | {"choices": [choice]} | usage

    def last_chunk(self, usage: Json) -> Json:
        """What tells a stream's usage."""
        return self.head(stream=True) | {"choices": [], "usage": usage}


def usage(prompt: int, written: int) -> Json:
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
