"""Small benchmarks, written once."""

import hashlib
from pathlib import Path

import pytest

from fastreid.rendered import LAYOUTS, BenchmarkSpec, write_benchmark

SPEC = BenchmarkSpec(train_ids=3, test_ids=4, images_per_camera=2, size=(32, 16), seed=7)


@pytest.fixture(scope="session")
def spec() -> BenchmarkSpec:
    return SPEC


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Path:
    """The root folder of all five benchmarks, written by one process."""
    root = tmp_path_factory.mktemp("datasets")
    for name in LAYOUTS:
        write_benchmark(name, root, SPEC, workers=1)
    return root


@pytest.fixture(scope="session")
def digests():
    """A function: folder -> {relative path: SHA-1 of the bytes}, temporary files included."""

    def digest(folder: Path) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): hashlib.sha1(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return digest
