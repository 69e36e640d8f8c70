"""Text: where it comes from, and how it becomes blocks of tokens."""
