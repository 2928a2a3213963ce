"""Does it help? Real scans alone against every method, on held-out subjects: the paper's tables in one command."""
