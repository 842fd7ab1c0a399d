"""Rankings (Step 1), compensation, and rules: scores or counts in, skip sets and schedules out."""

from litestage.skipping.compensation import check_compensation, fit, fit_norm_ratio, load_stands, save_stand
from litestage.skipping.probe import Effect, Probe, greedy, probe
from litestage.skipping.ranking import Ranking, block_influence, rank_sub_layers, redundancy

__all__ = [
    "Effect",
    "Probe",
    "Ranking",
    "block_influence",
    "check_compensation",
    "fit",
    "fit_norm_ratio",
    "greedy",
    "load_stands",
    "probe",
    "rank_sub_layers",
    "redundancy",
    "save_stand",
]
