"""What the pages share. Nothing here imports torch; the engine runs in worker processes."""
