"""Index extracted features, and find the pictures that are nearest to query pictures.

python tools/extract_features.py --checkpoint model_best.pth --folder pictures --output features
python tools/search.py build --features features --index index
python tools/search.py query --index index --pictures query.jpg more_queries/ --html found.html
"""

import argparse
import json
import sys
from typing import Any

from tabulate import tabulate

from fastreid.deploy.feature_files import FeatureSet, feature_choice
from fastreid.deploy.image_lists import list_file, list_pictures
from fastreid.deploy.labels import column_arguments
from fastreid.deploy.search_index import KINDS, SearchIndex, check_index_folder
from fastreid.utils.cli import CommandLineParser, add_imports_option, command
from fastreid.utils.file_io import check_output_file, check_output_folder
from fastreid.visualization import SearchHit, SearchResult, write_search_page


def build_parser() -> CommandLineParser:
    parser = CommandLineParser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="make an index of extracted features")
    build.add_argument("--features", required=True, metavar="DIR", help="what extract_features.py wrote")
    build.add_argument("--index", required=True, metavar="DIR", help="the folder to write")
    build.add_argument(
        "--kind", choices=KINDS, default="auto", help="auto: exact up to 100,000 pictures, else ivf"
    )
    query = commands.add_parser("query", help="search an index")
    query.add_argument("--index", required=True, metavar="DIR", help="what `build` wrote")
    pictures = query.add_mutually_exclusive_group(required=True)
    pictures.add_argument("--pictures", nargs="+", metavar="PATH", help="query pictures, or folders of them")
    listed = "a path a line, or CSV: path, and camid or view where the model reads it"
    pictures.add_argument("--list", metavar="FILE", help=listed)
    query.add_count("--top", 10, "hits", metavar="K")
    query.add_argument(
        "--checkpoint", metavar="FILE", help="where the model of the features is now, if it was moved"
    )
    add_imports_option(query)
    query.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    query.add_argument("--json", action="store_true", help="print JSON instead of a table")
    query.add_argument("--html", metavar="FILE", help="also write a page with the pictures")
    return parser


def build(args: argparse.Namespace) -> None:
    check_output_folder(args.index, "--index")
    check_index_folder(args.index)
    index = SearchIndex.build(FeatureSet.open(args.features), args.kind)
    index.save(args.index)
    print(f"{len(index)} pictures, {describe(index)}: {args.index}")


def describe(index: SearchIndex) -> str:
    facts = index.facts
    if facts["kind"] == "exact":
        return "exact search"
    return (
        f"IVF search in {facts['probes']} of {facts['lists']} lists, recall@10 {facts['recall']:.3f}"
        f" for indexed pictures"
    )


def query(args: argparse.Namespace) -> None:
    if args.html:
        check_output_file(args.html, "--html")
    index = SearchIndex.open(args.index)
    columns = list_file(args.list) if args.list else {"path": list_pictures(args.pictures)}
    paths = columns["path"]
    model = index.load_model(args.checkpoint, args.device, args.imports)
    labels = column_arguments(model.method, model.model.test_labels, columns)
    features = model.extract(paths, **feature_choice(index.facts), **labels)
    scores, rows = index.search(features, args.top)
    answers = [
        {"query": path, "results": hits(index, *found)}
        for path, *found in zip(paths, scores, rows, strict=True)
    ]
    share = index.recall(features, args.top)
    if args.json:
        answer = {"search": index.facts["kind"], "top": args.top, "recall": share, "answers": answers}
        print(json.dumps(answer, indent=2))
    else:
        for answer in answers:
            print(f"{answer['query']}\n{tabulate(answer['results'], headers='keys', floatfmt='.4f')}\n")
        print(f"{describe(index)}; recall@{args.top} for these queries {share:.3f}")
    if args.html:
        write_page(args, answers)


def hits(index: SearchIndex, scores: Any, rows: Any) -> list[dict[str, Any]]:
    """List what was found for one query, nearest first: rank, score and the columns of the index's table."""
    found = [(score, row) for score, row in zip(scores.tolist(), rows.tolist(), strict=True) if row >= 0]
    return [
        {"rank": rank, "score": score} | {name: values[row] for name, values in index.columns.items()}
        for rank, (score, row) in enumerate(found, start=1)
    ]


def write_page(args: argparse.Namespace, answers: list[dict[str, Any]]) -> None:
    results = [
        SearchResult(
            answer["query"], [SearchHit(hit["path"], hit["score"], caption(hit)) for hit in answer["results"]]
        )
        for answer in answers
    ]
    shown = write_search_page(args.html, results, score_name="cosine similarity")
    print(f"{shown} of {len(results)} queries: {args.html}", file=sys.stderr)


def caption(hit: dict[str, Any]) -> str:
    words = {"pid": "person", "camid": "camera", "viewid": "view"}
    return ", ".join(f"{word} {hit[name]}" for name, word in words.items() if name in hit)


@command(build_parser)
def main(args: argparse.Namespace) -> None:
    {"build": build, "query": query}[args.command](args)
