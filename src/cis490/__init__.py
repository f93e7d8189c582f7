"""cis490: from a store of recorded VM episodes to detectors, and an honest answer about them."""

__version__ = "0.1.0"
