"""Images per second of Stage 2: generating features and a training step, against the plain loop; cost curve.

The plain loop generates one view at a time with two UNet calls a step, computes the conditions again in every
step, encodes the batch in every training step, and is float32. Both sides have the same random weights and
inputs, and take turns in one run. Tiny sizes on the CPU; Stable Diffusion v1.5 and ViT-Base on CUDA, in bf16.
The weights are random: the curve's speeds hold for trained ones too, its cosines are those of this network.
"""

import os

from fastreid.utils.cli import CommandLineParser

PARTS = ("generation", "training", "curve")


def add_arguments(parser: CommandLineParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--size", choices=("tiny", "full"), help="default: full on CUDA, tiny on the CPU")
    parser.add_count("--batch-sizes", [16, 64], "images", nargs="+")
    parser.add_count("--views", 2, "of each image")
    parser.add_count("--steps", 10, "DDPM steps")
    parser.add_count("--repeats", 5, "in which the compared take turns")
    parser.add_count("--threads", os.cpu_count() or 1, "of torch")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw the cost curve into this file, such as curve.png"
    )
