"""SmolLM3: the plain pre-norm decoder; every fourth block turns no positions (``no_rope_layers``)."""

from litestage.models.families.family import Family

FAMILY = Family("smollm3")
