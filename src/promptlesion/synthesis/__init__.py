"""Lesions sampled and blended into the full scan, judged, and whole cohorts of such scans."""
