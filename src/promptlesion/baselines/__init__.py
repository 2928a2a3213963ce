"""The two systems the paper compares itself with, behind the same interface as ours."""
