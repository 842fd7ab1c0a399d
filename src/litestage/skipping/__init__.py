"""Rankings (Step 1), compensation, and rules: scores or counts in, skip sets and schedules out."""

from litestage.core import Ranking
from litestage.skipping.compensation import fit, fit_norm_ratio, gather, load_stands, read_compensation, save_stand
from litestage.skipping.probe import Effect, Probe, greedy, probe
from litestage.skipping.ranking import (
    RANKINGS,
    RankingKind,
    block_influence,
    decoded_redundancy,
    rank_by_effect,
    rank_sub_layers,
    redundancy,
)

__all__ = [
    "RANKINGS",
    "Effect",
    "Probe",
    "Ranking",
    "RankingKind",
    "block_influence",
    "decoded_redundancy",
    "fit",
    "fit_norm_ratio",
    "gather",
    "greedy",
    "load_stands",
    "probe",
    "rank_by_effect",
    "rank_sub_layers",
    "read_compensation",
    "redundancy",
    "save_stand",
]
