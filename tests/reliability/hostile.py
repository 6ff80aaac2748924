"""Values that nobody meant, for the fuzz tests.

FUZZ_EXAMPLES=5000 pytest tests/reliability/test_fuzz_*.py searches longer.
"""

import datetime
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fastreid.utils.errors import UserError

QUICK = 50
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", QUICK))
fuzz = settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES == QUICK,  # the suite's run is the same every time, a long one is not
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

TEXTS = ["", "a\0b", "a\0b/c.jpg", "x" * 300, "y/" * 3000, "caf\udce9", "\ud800", "..", "/dev/null"]
TEXTS += ["nan", "1e999", "[]"]
NUMBERS = [0, -1, 2**31, 2**63, 2**64, -(2**70), 10**400, 1e308, 1e-320, -0.0]
NUMBERS += [float("nan"), float("inf"), -float("inf")]

texts = st.sampled_from(TEXTS) | st.text(max_size=8)
numbers = st.sampled_from(NUMBERS) | st.integers() | st.floats()
leaves = st.none() | st.booleans() | numbers | texts | st.binary(max_size=4)
leaves |= st.just(datetime.date(2026, 1, 1))
values = st.recursive(
    leaves,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(texts | st.integers(-1, 9), part, max_size=3),
    max_leaves=6,
)


def refused(work: Callable[[], Any]) -> str:
    """Return what the `UserError` of `work` says; empty if it has none. Any other exception is a failure."""
    try:
        work()
    except UserError as error:
        said = str(error)
    else:
        return ""
    assert said.strip()
    return said


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """List the paths of everything inside nested dicts and lists."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        found += places(part, (*path, key))
    return found


def replaced(value: Any, path: tuple, change: Callable[[Any], Any]) -> Any:
    """Return a copy in which `change` has been made of what is at `path`; `KeyError` from it removes that."""
    copy = dict(value) if isinstance(value, dict) else list(value)
    key, *rest = path
    try:
        copy[key] = replaced(copy[key], tuple(rest), change) if rest else change(copy[key])
    except KeyError:
        del copy[key]
    return copy


def missing(_: Any) -> Any:
    """Remove what is there: a change for `replaced`."""
    raise KeyError


changes = st.just(missing) | values.map(lambda value: lambda _: value)
