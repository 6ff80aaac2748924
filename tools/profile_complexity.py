"""Count parameters, operations, memory and latency of a model."""

from checkout import run

run("fastreid.cli.profile_complexity", __name__)
