"""Models of EGM."""
