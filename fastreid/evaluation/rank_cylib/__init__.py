"""The optional compiled kernels of rank evaluation.

Built by ``pip install .``, or in place by ``python setup.py build_ext --inplace`` in this folder.
``rank_cy`` is None when they are not built; the callers then count in NumPy.
"""

try:
    from fastreid.evaluation.rank_cylib import rank_cy
except ImportError:
    rank_cy = None

__all__ = ["rank_cy"]
