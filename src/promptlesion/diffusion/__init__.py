"""Stage 2: a prompt-conditioned diffusion model in the autoencoder's latent space."""
