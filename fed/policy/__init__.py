"""A device's own rules: what a run may ask of it, and what may leave it. Knows no Flower.

policy         the rules of one device, read from a TOML file; strict unless it says otherwise
run_rules      whether a run's settings and base model are within them
edit_rules     whether a collective edit is one: finite, orthonormal, within the base's own norms
hidden_norms   how long the base model's hidden states are, block by block
journal        how many messages came, and what settings a run began with
leaving        every number that leaves a device, and what becomes of it on the way
"""
