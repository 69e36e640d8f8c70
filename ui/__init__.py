"""Code shared by the pages. Nothing here imports torch; the engine runs in worker processes."""
