"""Write the CSV file of `CSVDataset` for a folder of person crops; docs/own_data.md is the guide.

FOLDER/PID/CAMERA_FRAME.jpg, where the camera stands in the file name and FOLDER/PID/VIEW/ is the view:

    python tools/make_csv.py FOLDER --levels pid/view --names '^(?P<camera>[^_]+)_' --output people.csv

The persons are split at random into training and test, and queries are chosen in every camera.
"""

import argparse
import os
from pathlib import Path

from fastreid.data import describe
from fastreid.data.datasets.csv_dataset import CSVDataset
from fastreid.data.datasets.csv_file import check_table
from fastreid.data.person_folders import Crops, csv_bytes, name_cameras, split_persons
from fastreid.utils.cli import CommandLineParser, command, number_from_zero
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, check_output_file, named_output
from fastreid.utils.logger import setup_logger


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="holds the person crops")
    parser.add_argument("--output", required=True, metavar="FILE", help="the CSV file to write")
    levels = "what the folders between FOLDER and an image are: pid, view, camera or - (default %(default)s)"
    parser.add_argument("--levels", default="pid", metavar="A/B", help=levels)
    names = (
        "regular expression with named groups (?P<view>…), (?P<camera>…), (?P<pid>…), searched for in"
        " file names; without a camera each view counts as one"
    )
    parser.add_argument("--names", default="", metavar="REGEX", help=names)
    share = "persons to train on (default %(default)s)"
    parser.add_argument("--train-share", type=float, default=0.5, metavar="X", help=share)
    parser.add_count("--query-per-camera", 1, "queries of a test person in each camera")
    parser.add_count("--seed", 1111, "of the split", type=number_from_zero)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that holds something else")
    return parser


def write_csv(path: str, content: bytes, overwrite: bool) -> None:
    """Write the file, unless that would lose another one."""
    if not overwrite and os.path.exists(path) and Path(path).read_bytes() != content:
        raise UserError(
            f"{path} exists and holds something else", "choose another --output, or --overwrite it"
        )
    with named_output(path), atomic_write(path) as file:
        file.write(content)


@command(build_parser)
def main(args: argparse.Namespace) -> None:
    setup_logger()
    check_output_file(args.output, "--output")
    crops = Crops(list(filter(None, args.levels.split("/"))), args.names).scan(args.folder)
    rows = split_persons(crops, args.train_share, args.query_per_camera, args.seed)
    folder = os.path.dirname(os.path.abspath(args.output))
    content = csv_bytes(rows, folder)
    dataset = CSVDataset(csv=args.output, table=check_table(content.decode(), args.output))
    sizes = describe([dataset])
    write_csv(args.output, content, args.overwrite)
    print(sizes)
    print(f"views: {', '.join(dataset.view_names)}")
    print(f"cameras: {', '.join(name_cameras(crops).values())}")
    print(f"{args.output}: {len(rows)} images")
