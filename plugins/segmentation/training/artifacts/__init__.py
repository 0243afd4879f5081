"""Learns to see artifacts: X-AIGD's perceptual artifact detection alone, before judging, or beside it."""
