"""Helpers that every other package may use; they import nothing of the project but themselves."""
