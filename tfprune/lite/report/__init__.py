"""One page that shows a colleague what a smaller model saves and costs, and whether it is safe to ship."""

from tfprune.lite.report.model_report import ModelReport
from tfprune.lite.report.report import report

__all__ = ["ModelReport", "report"]
