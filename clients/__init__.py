"""The ClientApp: what a device runs, and what Ray hosts in simulation. Imports no ray, pyreft or datasets."""
