"""Evaluation as data grows, as `parsers.scale` describes."""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from fastreid.config import CfgNode, get_cfg
from fastreid.data import build_test_datasets
from fastreid.evaluation import ReidEvaluator
from fastreid.evaluation.evaluator import Encoded, distinct_samples, score_protocols
from fastreid.modeling import build_model, fit_config
from fastreid.utils.complexity import peak_memory
from tools.benchmarks.loader import write_crops
from tools.benchmarks.search import CAMERAS, PEOPLE, SHARD_SIZE, Population, gigabytes
from tools.benchmarks.trainings import check_ended_well, children

REPO = Path(__file__).resolve().parents[2]
CONFIG = REPO / "configs/CARGO/vit_baseline.yml"
QUERIES = 1000
IMAGES_PER_PERSON = SHARD_SIZE // PEOPLE
PICTURES = 64  # different ones: a file system allows some 65,000 names of one
SECONDS_BETWEEN_LOOKS = 0.1
TINY = {
    "NAME": "build_plain_vit_backbone",
    "DEPTH": "custom",
    "NUM_LAYERS": 2,
    "NUM_HEADS": 2,
    "FEAT_DIM": 64,
}
SIZE = {"SIZE_TRAIN": [64, 32], "SIZE_TEST": [64, 32]}
MOMENTS = (r"Evaluating \d+ protocols", r"Encoded \d+ images", r"Evaluation results")


def main(args: argparse.Namespace) -> None:
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, numpy {np.__version__}")
    for part, measure in (("files", bench_files), ("features", bench_features)):
        if part in args.parts:
            with tempfile.TemporaryDirectory() as folder:
                rows = list(measure(Path(folder), args))
            print(f"\n{tabulate(rows, 'keys', tablefmt='github', disable_numparse=True)}", flush=True)


class Tree:
    """A folder of CARGO that grows: 1,000 queries and a gallery of the persons of a `Population`."""

    def __init__(self, root: Path) -> None:
        self.root, self.size = root, 0
        write_crops(str(root / "pictures"), PICTURES)
        self._pictures = sorted((root / "pictures").rglob("*.jpg"))
        for split in ("query", "gallery"):
            for camera in range(1, CAMERAS + 1):
                (root / "CARGO" / split / f"Cam{camera}").mkdir(parents=True)
        for number in range(QUERIES):
            self._link(query_name(number), number)

    def grow(self, size: int) -> None:
        """Give the gallery `size` images, not fewer than before."""
        for number in range(self.size, size):
            self._link(gallery_name(number), number)
        self.size = size

    def _link(self, name: str, number: int) -> None:
        os.link(self._pictures[number % PICTURES], self.root / "CARGO" / name)


def gallery_name(number: int) -> str:
    camera, person = 1 + number % CAMERAS, number // IMAGES_PER_PERSON
    return f"gallery/Cam{camera}/Cam{camera}_day_{person}_{number}.jpg"


def query_name(number: int) -> str:
    """Give another picture of one of the first persons."""
    camera = 1 + number % CAMERAS
    return f"query/Cam{camera}/Cam{camera}_night_{number % PEOPLE}_{number}.jpg"


def tiny_cfg(root: Path) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(CONFIG)
    values = {"MODEL": {"DEVICE": "cpu", "BACKBONE": TINY}, "INPUT": SIZE}
    values |= {"DATASETS": {"ROOT": str(root)}, "OUTPUT_DIR": str(root / "run")}
    cfg.merge_values(values, "benchmark")
    return cfg


# ---------------------------------------------------------------------------------------------- files
def bench_files(root: Path, args: argparse.Namespace) -> Iterator[dict[str, str]]:
    cfg, tree = tiny_cfg(root), Tree(root)
    cfg.DATALOADER.NUM_WORKERS = args.workers
    cfg.MODEL.WEIGHTS = str(root / "model.pth")
    (root / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    model = build_model(fit_config(cfg, 4, ("aerial", "ground")))
    meta = {"method": type(model).__name__, "num_classes": 4, "config": cfg.dump()}
    torch.save({"model": model.state_dict(), "meta": meta}, cfg.MODEL.WEIGHTS)
    for size in sorted(args.files):
        tree.grow(size - QUERIES)
        began = time.perf_counter()
        (scanned, encoded, scored), peak = watch_evaluation(root / "config.yaml")
        yield {
            "files": f"{size:,}",
            "start and scan": f"{scanned:.1f} s",
            "encode": f"{encoded - scanned:.1f} s",
            "score": f"{scored - encoded:.1f} s",
            "by the clock": f"{time.perf_counter() - began:.0f} s",
            "peak memory of its own": gigabytes(peak),
        }


def watch_evaluation(config: Path) -> tuple[list[float], int]:
    """Evaluate the model of a configuration with the program.

    Returns:
        Its processors' seconds when each of the `MOMENTS` was in its log, and its peak memory in bytes.
    """
    process = subprocess.Popen(
        [sys.executable, "tools/train_net.py", "--config-file", config, "--eval-only"],
        cwd=REPO,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    peak, ended = 0, threading.Event()

    def look() -> None:
        nonlocal peak
        while not ended.wait(SECONDS_BETWEEN_LOOKS):
            peak = max(peak, own_memory(process.pid))

    watcher = threading.Thread(target=look)
    watcher.start()
    lines, seconds = [], []
    for line in process.stdout:
        lines.append(line)
        if len(seconds) < len(MOMENTS) and re.search(MOMENTS[len(seconds)], line):
            seconds.append(processor_seconds(process.pid))
    ended.set()
    watcher.join()
    check_ended_well("the evaluation", process.wait(), lines)
    return seconds, peak


def own_memory(pid: int) -> int:
    """Give the bytes of a process and those that it started, but for the files that they have mapped.

    What several of them share counts once.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    kilobytes = re.findall(r"^Pss_(?:Anon|Shmem): +(\d+)", text, re.MULTILINE)
    return 1024 * sum(map(int, kilobytes)) + sum(map(own_memory, children(pid)))


def processor_seconds(pid: int) -> float:
    """Give the seconds that a process and those that it started have worked, ended ones included."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    ticks = sum(map(int, text.rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK") + sum(map(processor_seconds, children(pid)))


# ------------------------------------------------------------------------------------------- features
def bench_features(root: Path, args: argparse.Namespace) -> Iterator[dict[str, str]]:
    population, tree = Population.of_width(args.width), Tree(root)
    for size in sorted(args.features):
        tree.grow(size)
        write_features(root / "features.npy", population, size)
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            scan, score, peak, mean = process.submit(score_features, root).result()
        yield {
            "gallery": f"{size:,}",
            "features": gigabytes(4 * args.width * (size + QUERIES)),
            "scan": f"{scan:.1f} s",
            "score": f"{score:.1f} s",
            "peak memory": gigabytes(peak),
            "mAP": f"{mean:.1f}",
        }


def write_features(path: Path, population: Population, size: int) -> None:
    """Write features of the gallery, then of the queries, in the order in which their files are scanned."""
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (size + QUERIES, len(population.axes)))
    place = np.empty(size, np.int64)
    place[sorted(range(size), key=gallery_name)] = np.arange(size)
    for first in range(0, size, SHARD_SIZE):
        own = place[first : first + SHARD_SIZE]
        by_turns = population.draw(first // SHARD_SIZE, SHARD_SIZE)  # a picture of each person, then the next
        by_person = by_turns.reshape(IMAGES_PER_PERSON, PEOPLE, -1).swapaxes(0, 1)
        rows[own] = by_person.reshape(by_turns.shape)[: len(own)]
    rows[size:] = population.draw(0, QUERIES, again=1)[sorted(range(QUERIES), key=query_name)]
    rows.flush()


def score_features(root: Path) -> tuple[float, float, int, float]:
    """Score the features in `root` as an evaluation does when all images are encoded.

    Returns:
        Seconds until the files are known, seconds after that, peak memory in bytes and mAP in percent.
    """
    torch.set_num_threads(1)
    cfg = tiny_cfg(root)
    start = time.process_time()
    datasets = build_test_datasets(cfg)
    features = torch.from_numpy(np.load(root / "features.npy", "c"))
    encoded = [Encoded(datasets, distinct_samples(datasets), features)]
    scanned = time.process_time()
    results = score_protocols(cfg, ReidEvaluator(cfg), encoded, None)
    return scanned - start, time.process_time() - scanned, peak_memory(), results["CARGO"]["mAP"]
