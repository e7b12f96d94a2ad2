"""The report for programs: the results as they are.

Figures are not rounded; costs are in the unit that stands beside them, and lower is better.
"""

import dataclasses
import json

from ..results import Report


def render(report: Report) -> str:
    return json.dumps(dataclasses.asdict(report), indent=1) + "\n"
