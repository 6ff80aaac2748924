"""Check everything that a training needs, before it starts: a table of what is fine, doubtful or wrong.

    python tools/check_setup.py --config-file configs/v2/base_stage1.yml
    python tools/check_setup.py --config-file configs/v2/base_stage2.yml --deep SOLVER.IMS_PER_BATCH 128

It takes the options of tools/train_net.py, so a command is checked by changing the name of the program. It
looks at versions and device, the datasets, the pretrained files, batches and schedule, and estimates the
memory; it writes nothing. Exit code 2 if anything is wrong, else 0.
"""

from fastreid.utils.cli import CommandLineParser
from fastreid.utils.training_arguments import default_argument_parser


def build_parser() -> CommandLineParser:
    parser = default_argument_parser()
    parser.description, parser.epilog = __doc__, None
    later = "MODEL.WEIGHTS is still to be trained: do not look for it"
    parser.add_argument("--weights-later", action="store_true", help=later)
    parser.add_argument("--deep", action="store_true", help="decode every picture, too: takes minutes")
    parser.add_count("--workers", 4, "threads of --deep")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parser
