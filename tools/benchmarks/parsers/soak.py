"""Kill a training with SIGKILL at random moments, resume it, and compare it with one that was left alone.

    python tools/soak.py --output logs/soak --kills 25
    python tools/soak.py --output logs/soak --kills 10 --processes 2

Both stages train on the embedded benchmark (configs/demo, made smaller): once uninterrupted, timing every
iteration, and once with kills at moments drawn uniformly from the uninterrupted runs' time, start-up,
checkpoints and evaluations included. Only the main process is killed; its loader worker must end by itself.
Final checkpoints (weights, optimiser, schedule, random states) and logged losses must be equal bit for bit.
Exit code 1 if they are not.

With several processes each kill takes one of them, drawn at random, and the run restarts by itself
(--max-restarts). None may be left behind in the end, loader workers included.
"""

from pathlib import Path

from fastreid.utils.cli import CommandLineParser


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("logs/soak"), metavar="DIR")
    parser.add_count("--kills", 25, "moments of a kill")
    parser.add_count("--processes", 1, "of each training")
    parser.add_count("--epochs", 4, "of each stage")
    parser.add_count("--iterations", 40, "of an epoch")
    parser.add_count("--checkpoint-iters", 7, "iterations between checkpoints")
    parser.add_count("--workers", 1, "of the data loader")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the moments and the trainings")
    return parser
