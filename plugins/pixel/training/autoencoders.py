"""The tiny autoencoders; they are at home in `tellsign.data`, since forging uses them too."""

from tellsign.data.autoencoders import NAMES, Autoencoder, read_stack

__all__ = ["NAMES", "Autoencoder", "read_stack"]
