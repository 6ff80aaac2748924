"""Measure the speed of the parts; each measurement is a file in tools/benchmarks/."""

from checkout import run

run("tools.benchmarks.benchmark", __name__)
