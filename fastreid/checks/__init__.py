"""Checks of a setup before a run: each file looks at one part and gives findings, which `report` shows."""

from fastreid.checks.batches import check_batches
from fastreid.checks.environment import check_environment
from fastreid.checks.report import Finding, as_json, has_errors, log_findings, summary, table
from fastreid.checks.setup import check_setup
