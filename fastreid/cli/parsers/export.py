"""Write a trained model as ONNX files, compared with PyTorch; docs/export.md says how to use them.

python tools/export.py --model logs/demo/stage2
"""

from fastreid.utils.cli import CommandLineParser


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    parser.add_model()
    parser.add_argument(
        "--output", metavar="DIR", help="folder to write (default: the folder export in OUTPUT_DIR)"
    )
    parser.add_argument("--pt2", action="store_true", help="also write torch.export's .pt2 files")
    return parser
