"""Pixel traces of synthesis, from native-resolution crops."""
