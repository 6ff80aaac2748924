"""Convert a checkpoint of the reference release."""

from checkout import run

run("fastreid.cli.convert_checkpoint", __name__)
