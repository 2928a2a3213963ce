"""Segmentation scores, lesion fidelity and brightness, figures and the report; imports no generator."""
