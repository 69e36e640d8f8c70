"""Models: shapes, masks, architectures, layers, surgery, deltas, and their files."""
