"""Mistral: the plain pre-norm decoder, with a sliding window where the config names one."""

from litestage.models.families.family import Family

FAMILY = Family("mistral", reads=frozenset({"hidden_act", "sliding_window"}))
