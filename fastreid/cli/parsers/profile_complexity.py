"""Count parameters, operations, memory and latency of a model, as a table and as JSON.

python tools/profile_complexity.py --config-file configs/v2/base_stage2.yml --no-timing
python tools/profile_complexity.py --model logs/v2/base_stage2_tstep800
"""

from fastreid.utils.cli import CommandLineParser


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    parser.add_model(config="of any method; weights are random without --model")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (default: MODEL.DEVICE)")
    parser.add_count("--batch-size", 1, "images at a time")
    parser.add_count("--repeats", 5, "timed repeats")
    parser.add_argument(
        "--no-timing", action="store_true", help="only count: nothing is computed or allocated"
    )
    parser.add_argument("--output", metavar="FILE", help="JSON to write")
    return parser
