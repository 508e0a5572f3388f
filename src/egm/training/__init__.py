"""Training of EGM."""
