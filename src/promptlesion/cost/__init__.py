"""What a stage will take: the steps of its networks counted and timed, and whether they fit into this machine."""
