"""What every test starts from: the package's logger as on import, no warning given yet; and the data."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from worlds.noise import write_noise
from worlds.programs import reset_logger

from fastreid.config import Registered, get_cfg
from fastreid.rendered import BenchmarkSpec, write_benchmark
from fastreid.utils.logger import warn_once
from fastreid.utils.registry import Registry

# Folders with files that take long: first, so that no core waits at the end for the last of them.
LONG = ("end_to_end", "contract", "reliability", "comparison", "engine", "deploy")


def pytest_collection_modifyitems(items):
    ranks = {folder: rank for rank, folder in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path.parent.name, len(LONG)))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs CUDA"))


@pytest.fixture(autouse=True)
def fresh_logging():
    """Also after fixtures of a wider scope, which may have run a program that sets up logging."""
    reset_logger()
    warn_once.cache_clear()
    yield
    reset_logger()


@pytest.fixture(scope="session")
def cargo(tmp_path_factory) -> Path:
    """A DATASETS.ROOT with a small rendered CARGO of 96x48 pictures; not to be changed."""
    root = tmp_path_factory.mktemp("rendered")
    write_benchmark("CARGO", root, BenchmarkSpec(8, 4, 2, (96, 48)), workers=0)
    return root


@pytest.fixture(scope="session")
def _noise(tmp_path_factory) -> Path:
    return write_noise(tmp_path_factory.mktemp("noise"))


@pytest.fixture
def noise_cargo(_noise, tmp_path) -> Path:
    """A DATASETS.ROOT of the test's own, its `tmp_path`, with a small CARGO of noise, to be damaged."""
    return shutil.copytree(_noise, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def caplog_fastreid(caplog, monkeypatch):
    """`caplog` for the package's logger, which does not propagate once it is set up."""
    monkeypatch.setattr(logging.getLogger("fastreid"), "propagate", True)
    caplog.set_level(logging.INFO, logger="fastreid")
    return caplog


@pytest.fixture
def own_names():
    """What the test registers, and the registries that it makes, are forgotten after it."""
    for name, key in get_cfg().declared.items():
        if isinstance(key.allowed, Registered):
            key.allowed.registry(name)  # is there, and filled
    every = dict(Registry.every)
    entries = {registry: dict(registry._entries) for registry in every.values()}
    yield
    Registry.every.clear()
    Registry.every.update(every)
    for registry, own in entries.items():
        registry._entries.clear()
        registry._entries.update(own)
