"""Kill trainings at random, resume them, and compare them with undisturbed ones."""

from checkout import run

run("tools.benchmarks.soak", __name__)
