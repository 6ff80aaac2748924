"""Everything that a GPU speeds up, on the one that is there, as `parsers.gpu` describes."""

import argparse
import gc
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from fastreid.utils.env import code_version, use_device
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, check_output_folder, named_output, write_json
from fastreid.utils.memory import is_allocation_failure
from tools.benchmarks.figures import Figure, markdown
from tools.benchmarks.gpu_parts import Bench
from tools.benchmarks.parsers.gpu import PARTS

WHAT = ("batch", "steps", "sampling", "repeats", "pictures", "images", "queries", "gallery")
SIZES = {
    "full": dict(zip(WHAT, (128, 20, 10, 3, 1024, 8192, 2000, 51000), strict=True)),
    "tiny": dict(zip(WHAT, (8, 1, 2, 1, 40, 12, 20, 200), strict=True)),
}


def main(args: argparse.Namespace) -> None:
    if args.device != "cpu" and not torch.cuda.is_available():
        problem = "this machine has no CUDA device, which this program is to measure"
        raise UserError(problem, "run it where there is one; --device cpu tries it at tiny size")
    device = use_device(args.device)
    check_output_folder(args.output, "--output")
    start = time.monotonic()
    deadline = start + 60 * args.minutes
    size = args.size or ("full" if device.type == "cuda" else "tiny")
    bench = Bench(device, size, SIZES[size], args.tests)
    figures: list[Figure] = []
    left_out: dict[str, str] = {}
    for name in tqdm(PARTS, unit="part", disable=not sys.stderr.isatty()):
        if name in args.parts:
            found, reason = attempt(bench, name, deadline)
            gc.collect()  # not before: a failure's traceback has kept the part's tensors
            torch.cuda.empty_cache()
            figures += found
            left_out |= {name: reason} if reason else {}
    facts = machine(device) | {"size": size, "seconds": round(time.monotonic() - start, 1)}
    report(Path(args.output), facts, figures, left_out)


def attempt(bench: Bench, name: str, deadline: float) -> tuple[list[Figure], str]:
    """Measure a part; return its figures and, if they are not all, why: its failure must cost no others."""
    figures: list[Figure] = []
    try:
        with time_limit(deadline - time.monotonic()):
            figures += getattr(bench, name)()
    except TimeoutError:
        return figures, "the time is up"
    except UserError as error:
        return figures, str(error)
    except Exception as error:
        if is_allocation_failure(error):
            return figures, "the GPU's memory is too small"
        traceback.print_exc()
        return figures, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return figures, ""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise a TimeoutError in the block when it takes longer; where it stands still in a kernel, after it."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    if seconds <= 0:
        raise TimeoutError
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the device and the versions."""
    facts = {"device": "CPU", "threads": torch.get_num_threads()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {"device": properties.name, "memory_gb": round(properties.total_memory / 1e9, 1)}
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return facts | {"torch": torch.__version__, "fastreid": code_version()}


def report(folder: Path, facts: dict[str, Any], figures: list[Figure], left_out: dict[str, str]) -> None:
    """Write the table and the JSON, and print the table."""
    table = markdown(f"{facts['device']}, torch {facts['torch']}, {facts['seconds']} s", figures, left_out)
    folder.mkdir(parents=True, exist_ok=True)
    values = {"figures": [figure.to_dict() for figure in figures], "left_out": left_out}
    with named_output(folder):
        write_json(folder / "gpu.json", facts | values)
        with atomic_write(folder / "gpu.md", "w") as file:
            file.write(table)
    print(table)
    print(folder / "gpu.json", folder / "gpu.md", sep="\n")
