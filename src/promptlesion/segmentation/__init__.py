"""Stage 3: a 3-D U-Net trained on real scans, or on real and synthetic ones together."""
