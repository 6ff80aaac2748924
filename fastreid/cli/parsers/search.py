"""Index extracted features, and find the pictures that are nearest to query pictures.

python tools/extract_features.py --model model_best.pth --folder pictures --output features
python tools/search.py build --features features --index index
python tools/search.py query --index index --pictures query.jpg more_queries/ --html found.html
python tools/search.py query --index index --pictures query.jpg --camera 3 --view aerial
python tools/search.py query --index index --pictures query.jpg --where "time < '12:00'"
python tools/search.py add --index index --features new_features
python tools/search.py remove --index index --where "time < '2026-01-01'"
"""

from fastreid.utils.cli import CommandLineParser, add_imports_option

WHERE = "pictures of which this holds, as SQL says it of the columns: \"camid = 3 AND time < '12:00'\""


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="make an index of extracted features")
    _add_features(build)
    build.add_argument("--index", required=True, metavar="DIR", help="the folder to write")
    build.add_argument(
        "--kind",
        default="auto",
        help="auto (exact up to 100,000 pictures, ivf up to 1,000,000, then ivfpq), exact, ivf, ivfpq, or a"
        " factory string of faiss, such as OPQ64,IVF4096,PQ32,Refine(PQ64)",
    )
    add = commands.add_parser("add", help="add the pictures of more features to an index")
    _add_index(add)
    _add_features(add)
    remove = commands.add_parser("remove", help="remove pictures from an index")
    _add_index(remove)
    which = remove.add_mutually_exclusive_group(required=True)
    which.add_argument("--where", metavar="SQL", help=WHERE)
    which.add_argument("--list", metavar="FILE", help="their paths: one a line, or CSV with a column path")
    compact = commands.add_parser("compact", help="write an index again without what was removed")
    _add_index(compact)
    _add_query(commands.add_parser("query", help="search an index"))
    return parser


def _add_features(parser: CommandLineParser) -> None:
    parser.add_argument("--features", required=True, metavar="DIR", help="what extract_features.py wrote")


def _add_index(parser: CommandLineParser) -> None:
    parser.add_argument("--index", required=True, metavar="DIR", help="what `build` wrote")


def _add_query(query: CommandLineParser) -> None:
    _add_index(query)
    pictures = query.add_mutually_exclusive_group(required=True)
    pictures.add_argument("--pictures", nargs="+", metavar="PATH", help="query pictures, or folders of them")
    listed = "a path a line, or CSV: path, and camera or view where the model reads it"
    pictures.add_argument("--list", metavar="FILE", help=listed)
    query.add_count("--top", 10, "hits", metavar="K")
    query.add_argument(
        "--camera", nargs="+", default=[], metavar="NAME", help="pictures of these cameras alone"
    )
    query.add_argument("--view", nargs="+", default=[], metavar="NAME", help="pictures of these views alone")
    query.add_argument("--where", metavar="SQL", help=f"also: {WHERE}")
    query.add_argument(
        "--model",
        "--checkpoint",
        metavar="PATH",
        help="where the model of the features is now, if it was moved: its checkpoint, or its run's folder",
    )
    add_imports_option(query)
    query.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    query.add_count("--num-gpus", 1, "processes for the features, each with a GPU if there are any")
    query.add_argument(
        "--query-features",
        metavar="DIR",
        help="keep them there: a query that was stopped goes on; for torchrun",
    )
    query.add_argument("--json", action="store_true", help="print JSON instead of a table")
    query.add_argument("--html", metavar="FILE", help="also write a page with the pictures")
