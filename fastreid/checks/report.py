"""The findings of checks: a level, a line and a fix each; as a table, as JSON, and in a run's log."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from tabulate import tabulate
from termcolor import colored

from fastreid.structures import Finding, Level
from fastreid.utils import comm
from fastreid.utils.errors import Complaint, UserError

logger = logging.getLogger(__name__)

COLORS = {"ok": "green", "warning": "yellow", "error": "red"}


class _Collector(logging.Handler):
    def __init__(self, findings: list[Finding], check: str) -> None:
        super().__init__(logging.WARNING)
        self.findings = findings
        self.check = check

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        said = record.msg if isinstance(record.msg, Complaint) else Complaint(record.getMessage())
        self.findings.append(_finding(level, self.check, said))


@contextmanager
def complaints(check: str) -> Iterator[list[Finding]]:
    """Turn what the package complains about in the block into findings of `check`.

    Its warnings become warnings and are not logged; the `UserError` that would end a run becomes an error
    and ends the block alone, and so does any other exception: one check must not hide the others.

    Yields:
        The list of findings, to which the block adds its own.
    """
    findings: list[Finding] = []
    package = logging.getLogger("fastreid")
    handlers, propagate = package.handlers[:], package.propagate
    package.handlers[:] = [_Collector(findings, check)]
    package.propagate = False
    failure: Exception | None = None
    try:
        yield findings
    except UserError as error:
        findings.append(_finding("error", check, Complaint(error.problem, error.fix)))
    except Exception as error:
        failure = error
        found = f"the check failed: {type(error).__name__}: {' '.join(str(error).split())}"
        findings.append(Finding("error", check, found, "--debug shows the traceback"))
    finally:
        package.handlers[:], package.propagate = handlers, propagate
    if failure is not None:
        logger.debug("%s", check, exc_info=failure)


def without_repetitions(findings: Sequence[Finding]) -> list[Finding]:
    """Leave out the complaints that an earlier finding has made."""
    first = {(finding.found, finding.fix): finding for finding in reversed(findings)}
    return [f for f in findings if f.level == "ok" or first[f.found, f.fix] is f]


def table(findings: Sequence[Finding], width: int = 120, color: bool = False) -> str:
    """Lay the findings out as a table of at most about `width` columns."""
    first = max((len(finding.check) for finding in findings), default=0) + len("warning") + 6
    text = max(width - first, 40)
    fix = min(max((len(finding.fix) for finding in findings), default=0), text * 2 // 5)
    rows = [
        [colored(f.level, COLORS[f.level], force_color=True) if color else f.level, f.check, f.found, f.fix]
        for f in findings
    ]
    widths = [None, None, text - fix, fix or None]
    return tabulate(
        rows, ["", "check", "found", "fix"], tablefmt="simple", maxcolwidths=widths, disable_numparse=True
    )


def summary(findings: Sequence[Finding]) -> str:
    """``"2 errors, 1 warning, 14 ok"`` with what it means."""
    counts = Counter(finding.level for finding in findings)
    parts = [f"{counts[level]} {level}{'s' * (counts[level] != 1)}" for level in ("error", "warning")]
    verdict = "this configuration cannot run" if counts["error"] else "this configuration can run"
    return f"{', '.join(parts)}, {counts['ok']} ok: {verdict}"


def has_errors(findings: Sequence[Finding]) -> bool:
    return any(finding.level == "error" for finding in findings)


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """``{"errors": n, "warnings": n, "findings": [{level, check, found, fix}, …]}``."""
    counts = Counter(finding.level for finding in findings)
    return {
        "errors": counts["error"],
        "warnings": counts["warning"],
        "findings": [asdict(finding) for finding in findings],
    }


def log_findings(findings: Sequence[Finding]) -> None:
    """On the first process, log the warnings as warnings, and what is fine for the log file alone.

    Raises:
        UserError: for the first error, with the number of the others.
    """
    errors = [finding for finding in findings if finding.level == "error"]
    for finding in findings:
        if finding.level != "error" and comm.is_main_process():
            level = logging.WARNING if finding.level == "warning" else logging.DEBUG
            logger.log(level, Complaint(f"{finding.check}: {finding.found}", finding.fix))
    if errors:
        more = f" (and {len(errors) - 1} more: tools/check_setup.py shows all)" if len(errors) > 1 else ""
        raise UserError(f"{errors[0].check}: {errors[0].found}{more}", errors[0].fix)


def _finding(level: Level, check: str, complaint: Complaint) -> Finding:
    return Finding(level, check, *(" ".join(text.split()) for text in complaint))
