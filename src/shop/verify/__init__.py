"""The audit of a shop's databases and topics: `audit(settings)` tells what was lost or doubled.

report = audit(load_settings())
assert report.clean, report.findings
"""

from shop.verify.audit import CannotLook, audit
from shop.verify.report import Example, Finding, Kind, Remark, Report

__all__ = ["CannotLook", "Example", "Finding", "Kind", "Remark", "Report", "audit"]
