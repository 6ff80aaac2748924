"""Render people in the layout of a benchmark."""

from checkout import run

run("fastreid.cli.make_synthetic_benchmark", __name__)
