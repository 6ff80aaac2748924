"""Write the features of a folder of pictures, of a list or of a dataset."""

import argparse

from fastreid import ReIDModel
from fastreid.cli.parsers.extract_features import build_parser
from fastreid.config import CfgNode
from fastreid.data.bad_images import check_image_files
from fastreid.data.datasets import open_dataset
from fastreid.deploy.feature_files import FeatureSet, extract_to_files
from fastreid.deploy.image_lists import Columns, list_dataset, list_file, list_folder
from fastreid.deploy.workers import run_shared
from fastreid.utils.cli import command
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import check_output_folder
from fastreid.utils.logger import setup_logger


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
