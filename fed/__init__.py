"""PerFit's method, data and byte accounting: torch and transformers only, no Flower and no Ray."""
