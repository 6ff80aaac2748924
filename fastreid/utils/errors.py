"""The exceptions that the tools print without a traceback of their own."""

from difflib import get_close_matches
from typing import NamedTuple


class Complaint(NamedTuple):
    """A problem and what to do about it; as text both in one line. Also the message of a warning."""

    problem: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.problem}; {self.fix}" if self.fix else self.problem


class UserError(Exception):
    """Bad input: a config, path, dataset or checkpoint that cannot be used.

    The command-line tools print it as one line without a traceback and exit with code 2.

    Args:
        problem: names the thing, and says what was found and what was expected.
        fix: what to do, in the imperative; empty where the problem says it all.
    """

    def __init__(self, problem: str, fix: str = "") -> None:
        super().__init__(problem, fix)
        self.problem, self.fix = problem, fix

    def __str__(self) -> str:
        return str(Complaint(self.problem, self.fix))


class WorkerError(RuntimeError):
    """A process that works for this one has failed; the message holds its traceback, if it left one.

    The command-line tools print it alone, as the traceback of this process tells nothing, and exit with
    code 1.
    """


def nearest_name(name: str, known: list[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest of `known`, or nothing when none is close.

    Upper and lower case count as the same.
    """
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    matches = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.5)
    return f" Did you mean {by_lower_case[matches[0]]!r}?" if matches else ""
