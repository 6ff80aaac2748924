"""Train a model, or evaluate one."""

from checkout import run

run("fastreid.cli.train_net", __name__)
