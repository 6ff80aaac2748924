"""Write a trained model as ONNX files."""

from checkout import run

run("fastreid.cli.export", __name__)
