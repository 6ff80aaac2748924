"""Convert a checkpoint of a method's authors."""

from checkout import run

run("fastreid.cli.convert_checkpoint", __name__)
