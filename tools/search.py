"""Index extracted features, and answer query pictures."""

from checkout import run

run("fastreid.cli.search", __name__)
