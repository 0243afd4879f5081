"""For whoever writes a detector: a package to start from, and named checks of what every plugin must keep to.

tellsign plugins new NAME      a package that installs, passes its tests and is listed
tellsign plugins check NAME    the checks; also as `check` here, and as a pytest fixture in `.pytest_plugin`
"""

from .report import Report, Result
from .run import CHECKS, check, describe

__all__ = ["CHECKS", "Report", "Result", "check", "describe"]
