"""The method on a live model: blocks, calibration, budget, cut, and the loop over iterations."""
