"""Write the features of a folder of pictures, of a list or of a dataset; a stopped run goes on where it was.

python tools/extract_features.py --model model_best.pth --folder pictures --output features
python tools/extract_features.py --model model_best.pth --dataset CARGO --split gallery --output features
torchrun --nproc-per-node 8 tools/extract_features.py --model model_best.pth --folder pictures --output f
"""

import argparse

from fastreid import ReIDModel
from fastreid.config import CfgNode
from fastreid.data.bad_images import check_image_files
from fastreid.data.datasets import open_dataset
from fastreid.deploy.feature_files import SHARD_SIZE, FeatureSet, extract_to_files
from fastreid.deploy.image_lists import SPLITS, Columns, list_dataset, list_file, list_folder
from fastreid.deploy.shards import FORMATS
from fastreid.deploy.workers import run_shared
from fastreid.utils.cli import CommandLineParser, command
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import check_output_folder
from fastreid.utils.logger import setup_logger


def view_list(text: str) -> list[str | int] | None:
    """Read ``"all"`` as None, ``"none"`` as [], ``"aerial,1"`` as ["aerial", 1]."""
    if text in ("all", "none"):
        return None if text == "all" else []
    return [int(name) if name.isdecimal() else name for name in text.split(",")]


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    parser.add_model("--checkpoint", required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--folder", metavar="DIR", help="all pictures below this folder")
    source.add_argument("--list", metavar="FILE", help="a path a line, or CSV: path, camid, view, …")
    source.add_argument("--dataset", metavar="NAME", help="a dataset in DATASETS.ROOT, such as CARGO_AG")
    parser.add_argument("--split", choices=SPLITS, help="of the dataset; default: all of them")
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--format", choices=FORMATS, default="npy", help="npz: labels in each shard too (default %(default)s)"
    )
    parser.add_count("--shard-size", SHARD_SIZE, "pictures a file")
    generated = "generated ones: all (default), none, or names with commas"
    parser.add_argument("--views", type=view_list, metavar="NAMES", help=generated)
    parser.add_argument(
        "--skip-bad", action="store_true", help="a row of NaN for a picture that cannot be read, no stop"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_count("--num-gpus", 1, "processes, each with a GPU if there are any")
    return parser


def list_source(args: argparse.Namespace, cfg: CfgNode) -> Columns:
    if args.split and not args.dataset:
        raise UserError("--split is of a dataset", "name it with --dataset")
    if args.dataset:
        columns = list_dataset(args.dataset, cfg, args.split)
    else:
        columns = list_folder(args.folder) if args.folder else list_file(args.list)
    if not args.skip_bad:
        source = args.dataset or args.folder or args.list
        check_image_files(columns["path"], f"{source} (--skip-bad leaves them out)", may_skip=False)
    return columns


def extract(args: argparse.Namespace) -> None:
    """Extract what other processes do not, as each of them does."""
    setup_logger()
    model = ReIDModel.from_checkpoint(
        args.model, args.config_file or None, args.device, args.opts, imports=args.imports
    )
    if args.dataset:
        data = model.cfg.DATASETS
        model.model.check_views(open_dataset(args.dataset, data.ROOT, data.CSV).view_names, args.dataset)
    columns = list_source(args, model.cfg)
    extract_to_files(model, columns, args.output, args.views, args.format, args.shard_size, args.skip_bad)


@command(build_parser, "finished shards are kept, the same command goes on")
def main(args: argparse.Namespace) -> None:
    check_output_folder(args.output, "--output")
    if run_shared(extract, (args,), args.num_gpus, args.device):
        features = FeatureSet.open(args.output)
        print(f"{len(features)} features of {features.facts['width']} numbers: {args.output}")
