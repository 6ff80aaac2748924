"""`tools/benchmark.py scale`: small folders and features, in this process."""

import os

import numpy as np

from tools.benchmarks import scale
from tools.benchmarks.search import Population


def test_features_belong_to_the_persons_of_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "QUERIES", 40)
    tree = scale.Tree(tmp_path)
    for size in (300, 700):
        tree.grow(size)
        scale.write_features(tmp_path / "features.npy", Population.of_width(64), size)
        assert len(np.load(tmp_path / "features.npy", "r")) == size + 40
        *_, mean = scale.score_features(tmp_path)
        assert mean > 95  # of any two of 35 persons the similarity is nearly 0, within one 0.6


def test_work_and_memory_are_those_of_the_process_and_its_children():
    before = scale.processor_seconds(os.getpid())
    while scale.processor_seconds(os.getpid()) < before + 0.05:
        pass
    assert 50e6 < scale.own_memory(os.getpid()) < 50e9
