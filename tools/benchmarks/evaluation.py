"""Rank evaluation and re-ranking against the straightforward methods, as `parsers.evaluation` describes."""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tabulate import tabulate

from fastreid.evaluation import compute_distance, evaluate_features, evaluate_rank, rerank_distance
from fastreid.evaluation.distance import normalise
from fastreid.evaluation.features import GALLERY_BLOCK, QUERY_BLOCK
from fastreid.utils.complexity import peak_memory, reset_peak_memory
from tools.benchmarks.baselines.evaluation import build_scoring, rank_by_sorting, rerank_densely

IMAGES_PER_PERSON = 20
CAMERAS = 13


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {args.threads} threads,")
    print(f"torch {torch.__version__}, numpy {np.__version__}, best of {args.repeats}")
    rows: list[list[str]] = []
    if "rank" in args.parts:
        for size in args.rank:
            rows += bench_rank(*size, args.repeats)
    if "features" in args.parts:
        rows += bench_features(*args.features, args.repeats)
    if "rerank" in args.parts:
        rows += bench_rerank(*args.rerank, args.repeats)
    if "rerank-large" in args.parts:
        rows += bench_large_rerank(*args.rerank_large)
    print(tabulate(rows, ["input", "method", "seconds", "extra memory", "note"], disable_numparse=True))


class Data(NamedTuple):
    q_feats: torch.Tensor
    g_feats: torch.Tensor
    labels: tuple[np.ndarray, ...]  # q_pids, g_pids, q_camids, g_camids


def clustered_data(num_queries: int, num_gallery: int, width: int) -> Data:
    """Draw features of length 1 around a centre per person, with noise for a mean average precision near 0.5.

    There, similarities of different persons have a standard deviation of ``width ** -0.5``, and those of the
    same person lie about ``0.9 + 0.55 * log10(num_gallery)`` deviations higher (fitted by simulation).
    """
    spread = (width**0.5 / (0.9 + 0.55 * np.log10(num_gallery)) - 1) ** 0.5
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    people = max(2, num_gallery // IMAGES_PER_PERSON)
    centres = torch.randn(people, width)
    labels = [rng.integers(0, high, n) for high in (people, CAMERAS) for n in (num_queries, num_gallery)]
    parts = []
    for pids in labels[:2]:
        features = torch.randn(len(pids), width)
        for start in range(0, len(pids), 1 << 14):
            rows = slice(start, start + (1 << 14))
            features[rows] = normalise(features[rows] * spread + centres[pids[rows]])
        parts.append(features)
    return Data(*parts, tuple(labels))


def bench_rank(num_queries: int, num_gallery: int, repeats: int) -> list[list[str]]:
    data = clustered_data(num_queries, num_gallery, 64)
    distmat = compute_distance(data.q_feats, data.g_feats).numpy()
    with tempfile.TemporaryDirectory() as folder:
        kernel = build_scoring(Path(folder))
        times, memory, results = measure(
            {
                "argsort + compiled scoring": lambda: rank_by_sorting(kernel, distmat, data.labels),
                "evaluate_rank": lambda: evaluate_rank(distmat, *data.labels),
                "evaluate_rank, NumPy": lambda: evaluate_rank(distmat, *data.labels, use_cython=False),
                "one pass over the matrix (max)": lambda: torch.from_numpy(distmat).max(),
            },
            repeats,
        )
    baseline, ours = results["argsort + compiled scoring"], results["evaluate_rank"]
    np.testing.assert_allclose(ours[1].mean(), baseline[1].mean(), atol=1e-6)
    what = f"ranks {num_queries} x {num_gallery}, mAP {ours[1].mean():.3f}"
    return [
        [
            what,
            name,
            f"{seconds:.4f}",
            f"{100 * memory[name] / distmat.nbytes:.1f} % of the matrix",
            f"{times['argsort + compiled scoring'] / seconds:.1f}x faster",
        ]
        for name, seconds in times.items()
    ]


def bench_features(num_queries: int, num_gallery: int, repeats: int) -> list[list[str]]:
    data = clustered_data(num_queries, num_gallery, 768)
    times, memory, results = measure(
        {
            "bare products": lambda: multiply(data.q_feats, data.g_feats),
            "evaluate_features": lambda: evaluate_features(data.q_feats, data.g_feats, *data.labels),
        },
        repeats,
    )
    bare = times["bare products"]
    what = f"features {num_queries} x {num_gallery} x 768, mAP {results['evaluate_features'][1].mean():.3f}"
    notes = {
        "bare products": f"{2 * num_queries * num_gallery * 768 / bare / 1e9:.0f} GFLOP/s",
        "evaluate_features": f"{times['evaluate_features'] / bare:.2f}x the products' time",
    }
    return [[what, name, f"{times[name]:.2f}", _bytes(memory[name]), notes[name]] for name in times]


def multiply(q_feats: torch.Tensor, g_feats: torch.Tensor) -> None:
    """Compute the products alone, block by block into one buffer."""
    room = torch.empty(QUERY_BLOCK * GALLERY_BLOCK)
    for queries in q_feats.split(QUERY_BLOCK):
        for gallery in g_feats.split(GALLERY_BLOCK):
            block = room[: len(queries) * len(gallery)].view(len(queries), len(gallery))
            torch.mm(queries, gallery.T, out=block)


def bench_rerank(num_queries: int, num_gallery: int, repeats: int) -> list[list[str]]:
    data = clustered_data(num_queries, num_gallery, 768)
    joined = torch.cat([data.q_feats, data.g_feats]).numpy()
    times, memory, results = measure(
        {
            "dense algorithm": lambda: rerank_densely(joined, num_queries),
            "rerank_distance": lambda: rerank_distance(data.q_feats, data.g_feats),
        },
        repeats,
    )
    what = f"re-ranking {num_queries} + {num_gallery}"
    difference = np.abs(results["dense algorithm"] - results["rerank_distance"])
    notes = {
        "dense algorithm": f"{100 * (difference > 1e-5).mean():.3f} % of distances differ by more than 1e-5",
        "rerank_distance": f"{times['dense algorithm'] / times['rerank_distance']:.1f}x faster",
    }
    return [[what, name, f"{times[name]:.2f}", _bytes(memory[name]), notes[name]] for name in times]


def bench_large_rerank(num_queries: int, num_gallery: int) -> list[list[str]]:
    data = clustered_data(num_queries, num_gallery, 768)
    before = evaluate_features(data.q_feats, data.g_feats, *data.labels)[1].mean()
    times, memory, results = measure(
        {"rerank_distance": lambda: rerank_distance(data.q_feats, data.g_feats)}, repeats=1
    )
    note = f"highest resident size {_bytes(peak_memory())}"
    after = evaluate_rank(results["rerank_distance"], *data.labels)[1].mean()
    what = f"re-ranking {num_queries} + {num_gallery}, mAP {before:.3f} -> {after:.3f}"
    return [[what, name, f"{times[name]:.1f}", _bytes(memory[name]), note] for name in times]


def measure(
    methods: dict[str, Callable[[], Any]], repeats: int
) -> tuple[dict[str, float], dict[str, int], dict[str, Any]]:
    """Return best seconds, most memory in bytes, and last result of each; the repeats take turns."""
    times = dict.fromkeys(methods, float("inf"))
    memory, results = dict.fromkeys(methods, 0), {}
    for _ in range(repeats):
        for name, method in methods.items():
            results.pop(name, None)
            reset_peak_memory()
            before = peak_memory()
            start = time.perf_counter()
            results[name] = method()
            times[name] = min(times[name], time.perf_counter() - start)
            memory[name] = max(memory[name], peak_memory() - before)
            print(f"  {name}: {time.perf_counter() - start:.3f} s", file=sys.stderr)
    return times, memory, results


def _bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
