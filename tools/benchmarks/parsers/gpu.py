"""Everything that a GPU speeds up, measured in at most eight minutes on the one that is there.

Each part is measured beside the plain way of doing it, in the same run: Stage 1's step and timm's ViT under
autocast, Stage 2's step and generation and the plain float32 loop, files to features and PIL with timm's
ViT, features to metrics and sorting. Features are compared with the CPU's, the tests that need CUDA run, and
settings for speed are switched on and off in turns. The networks are ViT-Base and Stable Diffusion v1.5's
UNet with random weights. The figures, beside their targets, go into gpu.json and gpu.md. On the CPU the same
program runs at tiny size, where there are no targets.
"""

from fastreid.utils.cli import CommandLineParser

PARTS = ("peak", "stage1", "generation", "stage2", "extraction", "evaluation", "cuda_tests", "agreement")
PARTS += ("settings",)  # the last, as it has the most to do


def add_arguments(parser: CommandLineParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--size", choices=("tiny", "full"), help="default: full on CUDA, tiny on the CPU")
    parser.add_count("--minutes", 8, "limit of all")
    parser.add_argument("--tests", default="tests", help="where tests of CUDA are (default: %(default)s)")
    parser.add_argument("--output", default="logs/gpu", help="folder to write (default: %(default)s)")
