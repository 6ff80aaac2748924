"""What the study of Stage 2 compares, how it trains and scores, and how it reports."""
