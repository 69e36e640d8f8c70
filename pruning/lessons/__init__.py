"""What the lessons of the app measure: small experiments on a model, in a process of their own."""
