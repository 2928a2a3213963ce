"""What is asked for: a lesion type, one-hot, embedded or read from the drawn mask by a small transformer."""
