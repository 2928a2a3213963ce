"""`promptlesion check`: what is wrong with a dataset, and what training on it will cost, before an hour is lost."""
