"""What `generator.py` measures, a file a table."""
