import pytest

from fastreid.evaluation.rank_cylib import rank_cy


@pytest.fixture(params=["cython", "numpy"])
def use_cython(request) -> bool:
    if request.param == "cython" and rank_cy is None:
        pytest.skip("the extension is not built: (cd fastreid/evaluation/rank_cylib && python setup.py …)")
    return request.param == "cython"
