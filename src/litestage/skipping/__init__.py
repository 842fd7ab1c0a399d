"""Rankings (Step 1), compensation, and rules: scores or counts in, skip sets and schedules out."""

from litestage.skipping.compensation import fit_norm_ratio, load_stands, save_stand
from litestage.skipping.ranking import Ranking, block_influence, rank_sub_layers, redundancy

__all__ = ["Ranking", "block_influence", "fit_norm_ratio", "load_stands", "rank_sub_layers", "redundancy", "save_stand"]
