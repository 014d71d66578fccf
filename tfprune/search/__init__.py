"""Decides which channels or weights to remove by measuring candidates, and walks the whole road in one call.

In comes a trained model with validation data, and what counts: objectives, a budget, a bound on the loss of accuracy.
Out comes a `SearchResult`, whose candidates become masked or smaller models, or a `Compression` with its int8 file.
"""

from tfprune.search.baselines import greedy_search, netadapt_search, random_search
from tfprune.search.compress.report import Compression
from tfprune.search.compress.road import compress
from tfprune.search.genetic import genetic_search
from tfprune.search.result import Candidate, SearchResult

__all__ = [
    "Candidate",
    "Compression",
    "SearchResult",
    "compress",
    "genetic_search",
    "greedy_search",
    "netadapt_search",
    "random_search",
]
