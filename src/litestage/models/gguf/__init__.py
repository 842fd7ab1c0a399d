"""GGUF files: read with the gguf package, by our own tables; every key and tensor is accounted for."""

from litestage.models.gguf.file import is_gguf
from litestage.models.gguf.read import describe, gguf_ledger, load_gguf

__all__ = ["describe", "gguf_ledger", "is_gguf", "load_gguf"]
