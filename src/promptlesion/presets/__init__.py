"""Presets: TOML files with any of the configuration's keys; what they leave out is the paper's value."""
