"""Write the CSV file of a folder of person crops."""

from checkout import run

run("fastreid.cli.make_csv", __name__)
