"""Write the CSV file of `CSVDataset` for a folder of person crops; docs/own_data.md is the guide.

FOLDER/PID/CAMERA_FRAME.jpg, where the camera stands in the file name and FOLDER/PID/VIEW/ is the view:

    python tools/make_csv.py FOLDER --levels pid/view --names '^(?P<camera>[^_]+)_' --output people.csv

The persons are split at random into training and test, and queries are chosen in every camera.
"""

from fastreid.utils.cli import CommandLineParser, number_from_zero


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
