"""The systems the paper compares itself with, and two that train nothing, behind the same interface as ours."""
