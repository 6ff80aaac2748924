"""Write the features of a folder, a list or a dataset."""

from checkout import run

run("fastreid.cli.extract_features", __name__)
