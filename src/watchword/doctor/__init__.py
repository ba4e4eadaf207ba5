"""The doctor: grades a configuration against what is known to go wrong, and names the setting."""

from watchword.doctor.checks import CHECKS
from watchword.doctor.examination import examine, examine_live, faulty
from watchword.doctor.lines import Configuration, Grade, Line

__all__ = [
    "CHECKS",
    "Configuration",
    "Grade",
    "Line",
    "examine",
    "examine_live",
    "faulty",
]
