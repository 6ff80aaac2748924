"""Dry runs lack what only some versions of torch have."""

import pytest
from dry_run import why_impossible


@pytest.fixture(autouse=True, scope="module")
def possible() -> None:
    """Another version of torch may have other private parts."""
    if why := why_impossible():
        pytest.skip(why)
