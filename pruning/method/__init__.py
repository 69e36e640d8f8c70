"""The mathematics of the method, on plain arrays: no model is known here."""
