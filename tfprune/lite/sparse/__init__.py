"""Which kernel runs each layer with zeros, what it asks of them, and how a file stores them for it."""

from tfprune.lite.sparse.plan import SparsePlan, plan_sparse

__all__ = ["SparsePlan", "plan_sparse"]
