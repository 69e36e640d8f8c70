"""Code shared by the pages. Nothing here imports torch; the engine runs in worker processes."""

import sys

# First and as a whole: sessions that open a fresh server at once otherwise meet it half imported.
import pandas  # noqa: F401

# The thread that sends to all browsers hands Python's lock over once a message, and takes it back after each script
# that computes had its turn: with turns of 5 ms and eight sessions at work no page was answered for two minutes.
sys.setswitchinterval(0.0005)
