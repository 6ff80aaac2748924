"""Train and score every setting of the study of Stage 2, which docs/stage2_study.md reports.

    python projects/stage2_study/study.py --output logs/study MODEL.DEVICE cpu

It renders the data, trains an encoder for every layout and seed, then the generators, and writes
results.json, table.md, gains.png and weights.png to the output folder. What is finished is not done again,
so that the same command goes on after an interruption, and runs for other layouts and seeds may share an
output folder at the same time. Weights of joined parts are chosen on identities that were held out from
training.
"""

from fastreid.utils.cli import CommandLineParser, number_from_zero
from projects.stage2_study.settings import PROTOCOLS, SETTINGS


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    parser.add_argument("--root", default="datasets/study", help="of the data (default: %(default)s)")
    parser.add_argument("--output", default="logs/study", help="folder (default: %(default)s)")
    layouts = list(PROTOCOLS)
    parser.add_argument("--layouts", nargs="+", choices=layouts, default=layouts, help="default: all")
    parser.add_count("--seeds", [1, 2, 3], "of the trainings", type=number_from_zero, nargs="+")
    names = [setting.name for setting in SETTINGS]
    quoted = "; ".join(names)
    parser.add_argument(
        "--settings", nargs="+", choices=names, metavar="NAME", help=f"of {quoted} (default: all)"
    )
    parser.add_count("--identities", 1000, "to train on")
    parser.add_count("--held-out-ids", 200, "to choose on")
    parser.add_count("--test-ids", 400, "to test on")
    parser.add_count("--threads", 1, "of the processor")
    parser.add_argument("--report-only", action="store_true", help="write the report of what is finished")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="configuration keys for all runs")
    return parser
