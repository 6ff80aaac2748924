"""Trained models in other programs: features of pictures, search, export."""
