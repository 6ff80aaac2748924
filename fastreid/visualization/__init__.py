"""Evaluations to look at: one self-contained HTML page, and PNGs of the same."""

from fastreid.visualization.search_page import SearchHit, SearchPages, SearchResult, write_search_page
