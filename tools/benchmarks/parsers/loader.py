"""Images per second of the training pipeline, against plain PIL on the same files in the same run.

Both pipelines read the same JPEG files in the same order through a DataLoader and give the same batches in
shape and type: decode, bicubic resize, pad + random crop, flip, random erasing, uint8 (B, 3, H, W).
"""

from fastreid.utils.cli import CommandLineParser, number_from_zero


def add_arguments(parser: CommandLineParser) -> None:
    parser.add_count("--images", 200, "JPEG files to read")
    parser.add_count("--batch-size", 64, "images")
    parser.add_count("--batches", 10, "timed batches a repeat")
    parser.add_count("--repeats", 9, "in which the pipelines take turns")
    parser.add_count("--workers", [0, 2], "worker counts", type=number_from_zero, nargs="+")
