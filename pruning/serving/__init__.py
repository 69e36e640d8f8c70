"""Stock engines that serve exports: starting, asking and timing them. Nothing here computes a model."""
