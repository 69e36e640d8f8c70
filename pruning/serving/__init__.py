"""Exports in the stock engines that serve them: started, asked, timed. Nothing here computes a model."""
