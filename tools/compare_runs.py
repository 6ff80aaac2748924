"""Put the results of several evaluations into one table."""

from checkout import run

run("fastreid.cli.compare_runs", __name__)
