"""Draw rank lists of an evaluated protocol: queries from the worst to the best, and what was found.

python tools/train_net.py --config-file FILE --eval-only … TEST.SAVE_RANKS True OUTPUT_DIR DIR
python tools/draw_rank_lists.py --run DIR --protocol CARGO_A2G --output ranks.png
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from fastreid.data import DATASET_REGISTRY
from fastreid.evaluation.rank_lists import draw_rank_lists, spread_by_precision
from fastreid.evaluation.report import read_results
from fastreid.utils.cli import CommandLineParser, exit_on_user_error
from fastreid.utils.errors import UserError


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, metavar="DIR", help="OUTPUT_DIR of the evaluation")
    parser.add_argument("--protocol", required=True, metavar="NAME", help="one of its protocols")
    parser.add_argument("--output", required=True, metavar="FILE", help="the PNG to write")
    parser.add_argument("--queries", type=int, default=8, metavar="N", help="lines (default %(default)s)")
    parser.add_argument(
        "--length", type=int, default=10, metavar="N", help="images a line (default %(default)s)"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def main() -> None:
    with exit_on_user_error("--debug" in sys.argv):
        args = build_parser().parse_args()
        root = read_results(args.run)["config"]["DATASETS"]["ROOT"]
        ranks_file = Path(args.run) / f"ranks_{args.protocol}.npz"
        if not ranks_file.is_file():
            raise UserError(f"{ranks_file} not found: evaluate {args.protocol} with TEST.SAVE_RANKS True")
        dataset = DATASET_REGISTRY.get(args.protocol)(root=root)
        with np.load(ranks_file) as ranks:
            average_precision, top_k = ranks["ap"], ranks["top_k"]
        if len(top_k) != len(dataset.query):
            raise UserError(
                f"{ranks_file} has {len(top_k)} queries, {args.protocol} now has {len(dataset.query)}:"
                " evaluate again"
            )
        rows = spread_by_precision(average_precision, args.queries)
        length = min(args.length, top_k.shape[1])
        draw_rank_lists(dataset.query, dataset.gallery, top_k, rows, length, args.output)
        print(f"{len(rows)} rank lists of {args.protocol}: {args.output}")


if __name__ == "__main__":
    main()
