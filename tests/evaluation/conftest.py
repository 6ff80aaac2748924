import logging

import pytest

from fastreid.evaluation.rank_cylib import rank_cy


@pytest.fixture(autouse=True)
def _captured_log(monkeypatch):
    """Log records reach pytest's caplog even after another test has configured the logger."""
    monkeypatch.setattr(logging.getLogger("fastreid"), "propagate", True)


@pytest.fixture(params=["cython", "numpy"])
def use_cython(request) -> bool:
    if request.param == "cython" and rank_cy is None:
        pytest.skip("the extension is not built: (cd fastreid/evaluation/rank_cylib && python setup.py …)")
    return request.param == "cython"
