"""An index of many features: building, searching, filtering, removing, adding and compacting it.

Features are made in clusters on disk, 20 pictures a person, shard by shard. Their principal variances are
level for the first 64 directions and then fall with the sixth power, which is the shape that encoders trained
on the rendered benchmark have; the cosine similarity of two pictures of a person is about 0.6. Queries are
other pictures of indexed persons. Recall is the share of the ten exact neighbours found; memory is the
process's highest resident size.
"""

import os

from fastreid.utils.cli import CommandLineParser


def add_arguments(parser: CommandLineParser) -> None:
    parser.add_count("--features", 2_000_000, "pictures")
    parser.add_count("--width", 768, "numbers of a feature")
    parser.add_count("--queries", 500, "pictures that are searched for")
    parser.add_count("--added", 10_000, "pictures that are added in the end")
    parser.add_argument("--kind", default="ivfpq", help="as in tools/search.py build (default %(default)s)")
    parser.add_argument("--folder", help="for features and index, which stay there; default: a temporary one")
    parser.add_count("--threads", os.cpu_count() or 1, "of faiss")
