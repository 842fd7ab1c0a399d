"""PlanResult for people: figure and table data, charts, one page, and the terminal. It computes nothing new."""

from litestage.report.plan_report import write_report

__all__ = ["write_report"]
