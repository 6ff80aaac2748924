"""A research framework for aerial-ground person re-identification, built around SD-ReID."""

__version__ = "0.1.0"
