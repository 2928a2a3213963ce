"""Lesion masks, their place in a host structure, and the sampled lesion blended into the full scan."""
