"""Convert a checkpoint of a method's authors to our names; docs/reference_release.md is the guide.

    python tools/convert_checkpoint.py --model FILE.pth --config-file FILE.yml --output DIR/model_best.pth

The config may be the authors' own yaml or one of configs/; its method says whose checkpoint it is. Beside the
output stands config.yaml, the config to use it with, as beside the checkpoint of a training.
"""

from fastreid.utils.cli import CommandLineParser


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    parser.add_argument("--model", "--weights", required=True, metavar="FILE", help="the authors' checkpoint")
    parser.add_config("the config it was trained with")
    parser.add_argument("--output", required=True, metavar="FILE", help="the checkpoint to write")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser
