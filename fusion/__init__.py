"""Evidence to feature row to calibrated probabilities to prediction set. No torch."""
