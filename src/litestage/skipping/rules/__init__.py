"""The rules that say what is skipped (the paper, section 5.1): a new one is a small file and a line in this table."""

from litestage.skipping.rules import (
    adaskip,
    depth_exit,
    litestage,
    shortgpt,
    skipdecode,
    unifiedskip,
    unifiedskip_original,
)
from litestage.skipping.rules.rule import Rule, Scores

RULES: dict[str, Rule] = {
    module.RULE.name: module.RULE
    for module in (litestage, adaskip, skipdecode, unifiedskip, unifiedskip_original, shortgpt, depth_exit)
}
"""By name, in the order that tables and charts have."""

__all__ = ["RULES", "Rule", "Scores"]
