"""Stage 1: a 3-D VQGAN that takes a CT patch to a latent a quarter of its size on every axis, and back."""
