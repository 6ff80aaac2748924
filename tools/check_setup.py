"""Check everything that a training needs, before it starts."""

from checkout import run

run("fastreid.cli.check_setup", __name__)
