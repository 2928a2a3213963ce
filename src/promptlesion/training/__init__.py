"""Tools every stage trains with: seeds, devices, checkpoints, run folders. Knows nothing medical."""
