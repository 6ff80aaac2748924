"""Write a report of a trained model, or of two."""

from checkout import run

run("fastreid.cli.visualize", __name__)
