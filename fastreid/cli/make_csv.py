"""Write the CSV file of `CSVDataset` for a folder of person crops; docs/own_data.md is the guide."""

import argparse
import os
from pathlib import Path

from fastreid.cli.parsers.make_csv import build_parser
from fastreid.data import describe
from fastreid.data.datasets.csv_dataset import CSVDataset
from fastreid.data.datasets.csv_file import check_table
from fastreid.data.person_folders import Crops, csv_bytes, name_cameras, split_persons
from fastreid.utils.cli import command
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, check_output_file, named_output
from fastreid.utils.logger import setup_logger


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
