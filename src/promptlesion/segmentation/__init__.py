"""Stage 3: a segmentation network trained on real scans, or on real and synthetic ones together."""
