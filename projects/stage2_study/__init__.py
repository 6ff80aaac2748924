"""A study of Stage 2: the settings that it compares, its trainings and scores, and its report."""
