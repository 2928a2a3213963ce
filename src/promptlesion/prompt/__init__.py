"""What is asked for: a lesion type, as a one-hot vector or read from the drawn mask by a small transformer."""
