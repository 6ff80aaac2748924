"""Count parameters, operations, memory and latency of a model, as a table and as JSON."""

import argparse
from typing import Any

import torch
from tabulate import tabulate

from fastreid.cli.parsers.profile_complexity import build_parser
from fastreid.config import CfgNode, check_config
from fastreid.deploy.model_cost import ModelSize, find_weights, measure_parts, model_size
from fastreid.engine import model_config
from fastreid.utils.cli import command
from fastreid.utils.complexity import Measurement
from fastreid.utils.env import resolve_device
from fastreid.utils.file_io import check_output_file, named_output, write_json


@command(build_parser)
def main(args: argparse.Namespace) -> None:
    if args.output:
        check_output_file(args.output, "--output")
    weights = find_weights(read_config(args))
    cfg = weights.cfg
    size = model_size(weights, args.batch_size)
    named = args.config_file or args.model
    tables = [size_table(size, args.batch_size)]
    report = {"config": named, "weights": weights.note, "batch_size": args.batch_size}
    report |= size_report(size)
    if not args.no_timing:
        device = resolve_device(cfg.MODEL.DEVICE)
        parts = measure_parts(weights, args.batch_size, args.repeats)
        tables.append(timing_table(parts, args.batch_size, device))
        report |= timing_report(parts, device)
    if args.output:
        with named_output(args.output):
            write_json(args.output, report)
        tables.append(args.output)
    print(f"{named}, {args.batch_size} image(s) of {cfg.INPUT.SIZE_TEST}")
    print(f"weights: {weights.note}")
    print(*tables, sep="\n")


def read_config(args: argparse.Namespace) -> CfgNode:
    cfg = model_config(args)
    cfg.MODEL.DEVICE = args.device or cfg.MODEL.DEVICE
    check_config(cfg, training=False)
    return cfg


def size_table(size: ModelSize, batch_size: int) -> str:
    rows = [
        [part, total / 1e6, trainable / 1e6, size.flops[part] / batch_size / 1e9]
        for part, total, trainable in size.parameters
    ]
    table = tabulate(rows, ["part", "M parameters", "M trainable", "GFLOP an image"], floatfmt=".3f")
    legend = "GFLOP: matrix products, convolutions and attention; a multiplication and an addition are 2"
    return "\n".join([table, *size.notes, legend])


def size_report(size: ModelSize) -> dict[str, Any]:
    counts = {part: {"total": total, "trainable": trained} for part, total, trained in size.parameters}
    return {"parameters": counts, "flops": size.flops, "notes": size.notes}


def timing_table(parts: dict[str, Measurement], batch_size: int, device: torch.device) -> str:
    rows = [
        [
            name,
            f"{1e3 * result.median:.1f} ({1e3 * min(result.seconds):.1f} - {1e3 * max(result.seconds):.1f})",
            f"{batch_size / result.median:.1f}",
            f"{result.peak_bytes / 1e9:.2f}",
        ]
        for name, result in parts.items()
    ]
    headers = [f"on {device}", "ms a batch (min - max)", "images/s", "peak GB"]
    return tabulate(rows, headers, disable_numparse=True)


def timing_report(parts: dict[str, Measurement], device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    timing = {
        part: {"median_seconds": r.median, "seconds": r.seconds, "peak_bytes": r.peak_bytes}
        for part, r in parts.items()
    }
    machine = {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    return machine | {"timing": timing}
