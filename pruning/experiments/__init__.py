"""Grids of runs, their reports, and the paper's figures beside them."""
