"""The command line of the training program, which others take, too. Nothing heavy is imported for it."""

from fastreid.utils.cli import CommandLineParser, number_from_zero


def default_argument_parser() -> CommandLineParser:
    """Arguments of the training program. Parse with `parse_intermixed_args`: options may stand anywhere.

    Its complaints are a `UserError`.
    """
    parser = CommandLineParser(
        "Train or evaluate a model as a config file says.",
        epilog="Several machines: the same command on each, with --num-machines, --machine-rank and"
        " --dist-url; torchrun works too (docs/scale.md).",
        allow_abbrev=False,
    )
    parser.add_model(config="YAML file, e.g. configs/v2/base_stage1.yml; with --model by default its own")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR")
    parser.add_argument("--eval-only", action="store_true", help="evaluate --model, train nothing")
    parser.add_count("--num-gpus", 1, "processes on this machine")
    parser.add_count("--num-machines", 1, "machines of the run")
    parser.add_argument(
        "--machine-rank", type=int, default=0, metavar="R", help="number of this machine, from 0"
    )
    parser.add_argument("--dist-url", default="auto", metavar="URL", help="tcp://HOST:PORT of machine 0")
    parser.add_argument(
        "--max-restarts",
        type=number_from_zero,
        default=0,
        metavar="N",
        help="times that all processes go on from the last checkpoint when one, or its machine, has died",
    )
    return parser
