"""What a model is worth and what it takes: perplexity, zero-shot accuracy, speed."""
