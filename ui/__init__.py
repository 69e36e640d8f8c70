"""Code shared by the pages. Nothing here imports torch; the engine runs in worker processes."""

# First and as a whole: sessions that open a fresh server at once otherwise meet it half imported.
import pandas  # noqa: F401
