"""Index extracted features, and find the pictures that are nearest to query pictures."""

import argparse
import json
import sys
from contextlib import nullcontext
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tabulate import tabulate

from fastreid.cli.parsers.search import build_parser
from fastreid.data.bad_images import check_image_files
from fastreid.deploy.feature_facts import feature_choice
from fastreid.deploy.feature_files import FeatureSet, extract_to_files
from fastreid.deploy.image_lists import Columns, list_file, list_pictures
from fastreid.deploy.labels import column_arguments
from fastreid.deploy.search import (
    SearchIndex,
    add_pictures,
    build_index,
    compact_index,
    condition,
    remove_pictures,
)
from fastreid.deploy.workers import run_shared
from fastreid.utils.cli import command
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import check_output_file, check_output_folder
from fastreid.utils.launcher import started_by_launcher
from fastreid.utils.logger import setup_logger
from fastreid.visualization import SearchHit, SearchResult, write_search_page

QUERY_SHARD = 500  # pictures that a process takes at once


def build(args: argparse.Namespace) -> None:
    check_output_folder(args.index, "--index")
    setup_logger()
    index = build_index(FeatureSet.open(args.features), args.index, args.kind)
    print(f"{len(index)} pictures, {describe(index)}: {args.index}")


def add(args: argparse.Namespace) -> None:
    setup_logger()
    added = add_pictures(args.index, FeatureSet.open(args.features))
    print(f"{added} pictures added, {len(SearchIndex.open(args.index))} in {args.index}")


def remove(args: argparse.Namespace) -> None:
    paths = list_file(args.list)["path"] if args.list else None
    removed = remove_pictures(args.index, args.where, paths)
    print(f"{removed} pictures removed, {len(SearchIndex.open(args.index))} in {args.index}")


def compact(args: argparse.Namespace) -> None:
    compact_index(args.index)
    print(f"{len(SearchIndex.open(args.index))} pictures in {args.index}")


def describe(index: SearchIndex) -> str:
    facts = index.facts
    if facts["kind"] == "exact":
        return "exact search"
    return (
        f"{facts['recipe']}, search in {facts['probes']} of {facts['lists']} lists,"
        f" {against_exact(10, facts['recall'])} for indexed pictures"
    )


def against_exact(top: int, share: float) -> str:
    """Say which share of the exactly nearest pictures a search finds; it says nothing of persons."""
    return f"recall@{top} against exact search {share:.3f}"


def query(args: argparse.Namespace) -> None:
    if args.html:
        check_output_file(args.html, "--html")
    index = SearchIndex.open(args.index)
    where = condition(index.table, args.where, args.camera, args.view)
    if where is not None:  # a mistake in it is found before the work on the queries
        index.table.select(where)
    paths = query_columns(args)["path"]
    check_image_files(paths, args.list or "--pictures", may_skip=False)
    features = query_features(args, index)
    if features is None:
        return
    scores, items = index.search(features, args.top, where)
    rows = index.rows(items)
    answers = [
        {"query": path, "results": hits(rows, *found)}
        for path, *found in zip(paths, scores, items, strict=True)
    ]
    share = index.recall(features, args.top, where)
    if args.html:
        write_page(args, answers)
    if args.json:
        shares = {"recall_against_exact_search": share}
        answer = {"search": index.facts["kind"], "top": args.top, **shares, "answers": answers}
        print(json.dumps(answer, indent=2))
    else:
        for answer in answers:
            print(f"{answer['query']}\n{result_table(answer['results'])}\n")
        known = "" if share is None else f"; {against_exact(args.top, share)} for these queries"
        print(f"{describe(index)}{known}")


def query_columns(args: argparse.Namespace) -> Columns:
    return list_file(args.list) if args.list else {"path": list_pictures(args.pictures)}


def query_features(args: argparse.Namespace, index: SearchIndex) -> np.ndarray | None:
    """Return the features of the queries; None in a process of torchrun's that another one answers for."""
    if args.query_features:
        check_output_folder(args.query_features, "--query-features")
    elif started_by_launcher():
        fix = "name a folder that all of them see: --query-features DIR"
        raise UserError("several processes share out the features of the queries", fix)
    elif args.num_gpus == 1:
        columns, model = query_columns(args), index.load_model(args.model, args.device, args.imports)
        labels = column_arguments(model.method, model.model.test_labels, columns)
        return model.extract(columns["path"], **feature_choice(index.facts), **labels)
    with nullcontext(args.query_features) if args.query_features else TemporaryDirectory() as folder:
        if not run_shared(extract_queries, (args, folder), args.num_gpus, args.device):
            return None
        return FeatureSet.open(folder).load()


def extract_queries(args: argparse.Namespace, folder: str) -> None:
    """Extract what other processes do not, as each of them does."""
    if not args.json:
        setup_logger()
    index = SearchIndex.open(args.index)
    model = index.load_model(args.model, args.device, args.imports)
    chosen = feature_choice(index.facts)
    extract_to_files(model, query_columns(args), folder, shard_size=QUERY_SHARD, **chosen)


def hits(rows: dict[int, dict[str, Any]], scores: Any, items: Any) -> list[dict[str, Any]]:
    """List what was found for one query, nearest first: rank, score and the columns of the index's table."""
    pairs = zip(scores.tolist(), items.tolist(), strict=True)
    found = [{"score": score} | rows[item] for score, item in pairs if item in rows]
    return [{"rank": rank} | hit for rank, hit in enumerate(found, start=1)]


def result_table(results: list[dict[str, Any]]) -> str:
    """Return hits as a table that shows names as they are, be they made of digits."""
    as_they_are = range(2, len(results[0]) if results else 0)  # behind rank and score
    return tabulate(results, headers="keys", floatfmt=".4f", disable_numparse=as_they_are)


def write_page(args: argparse.Namespace, answers: list[dict[str, Any]]) -> None:
    results = [
        SearchResult(
            answer["query"], [SearchHit(hit["path"], hit["score"], caption(hit)) for hit in answer["results"]]
        )
        for answer in answers
    ]
    pages = write_search_page(args.html, results, score_name="cosine similarity")
    lost = f"; {pages.lost} pictures are not where they were, or cannot be read" if pages.lost else ""
    print(f"{len(results)} queries: {', '.join(map(str, pages.paths))}{lost}", file=sys.stderr)


def caption(hit: dict[str, Any]) -> str:
    """Name the person, camera and view that a hit shows; of features from before they had names by number."""
    numbers = {"person": "pid", "camera": "camid", "view": "viewid"}
    known = {word: hit.get(word, hit.get(number)) for word, number in numbers.items()}
    return ", ".join(f"{word} {name}" for word, name in known.items() if name is not None)


@command(build_parser)
def main(args: argparse.Namespace) -> None:
    {"build": build, "add": add, "remove": remove, "compact": compact, "query": query}[args.command](args)
