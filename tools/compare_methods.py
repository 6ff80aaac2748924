"""Train methods on one benchmark with several seeds, and put them into one table."""

from checkout import run

run("fastreid.cli.compare_methods", __name__)
