"""Train a model, or evaluate one, as a config file says.

python tools/train_net.py --config-file configs/v2/base_stage1.yml --num-gpus 1
python tools/train_net.py --eval-only --model logs/v2/base_stage1_beta
"""

from fastreid.utils.cli import CommandLineParser
from fastreid.utils.training_arguments import default_argument_parser


def build_parser() -> CommandLineParser:
    return default_argument_parser()
