"""What is drawn and where: a lesion's size and shape, its mask grown in its host, and its place in the scan."""
