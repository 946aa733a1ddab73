"""Export a trained model, make it smaller, and compare the variants."""
