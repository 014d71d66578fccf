"""Search: which channels or weights to remove, found by evolution or step by step, and the whole road in one call."""

from tfprune.search.baselines import greedy_search, netadapt_search, random_search
from tfprune.search.compress.compress import compress
from tfprune.search.compress.compression import Compression
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
