"""Write the features of a folder of pictures, of a list or of a dataset; a stopped run goes on where it was.

python tools/extract_features.py --model model_best.pth --folder pictures --output features
python tools/extract_features.py --model model_best.pth --dataset CARGO --split gallery --output features
torchrun --nproc-per-node 8 tools/extract_features.py --model model_best.pth --folder pictures --output f
"""

from fastreid.deploy.shards import FORMATS, SHARD_SIZE
from fastreid.utils.cli import CommandLineParser


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
    splits = ("train", "query", "gallery")
    parser.add_argument("--split", choices=splits, help="of the dataset; default: all of them")
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
