"""What `import promptlesion` offers: images in and out, a lesion painted, and the verbs as functions."""
