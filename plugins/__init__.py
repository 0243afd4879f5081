"""The built-in detectors, each written as a third party would write it."""
