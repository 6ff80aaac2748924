"""The one exception that stands for a mistake of the user rather than of the program."""


class UserError(Exception):
    """Bad input: a config, path, dataset or checkpoint that cannot be used.

    The message is one line that names the thing, says what was expected and what to do.
    The command-line tools print it without a traceback and exit with code 2.
    """


def nearest_name(name: str, known: list[str]) -> str:
    """``" Did you mean 'x'?"`` for the closest of `known`, or an empty string when none is close.

    Upper and lower case count as the same.
    """
    from difflib import get_close_matches

    by_lower_case = {candidate.lower(): candidate for candidate in known}
    matches = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.5)
    return f" Did you mean {by_lower_case[matches[0]]!r}?" if matches else ""
