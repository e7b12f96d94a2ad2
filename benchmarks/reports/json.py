"""The report for programs: the results, not rounded. Each cost has its unit beside it, and lower is better."""

import dataclasses
import json

from ..results import Report


def render(report: Report) -> str:
    return json.dumps(dataclasses.asdict(report), indent=1) + "\n"
