"""What can be asked of a lesion, by name; imports nothing, so that a configuration is read at once."""

ATTRIBUTES: dict[str, str] = {
    "mean_hu": "mean inside",
    "std_hu": "standard deviation inside",
    "p10_hu": "10th percentile inside",
    "p50_hu": "median inside",
    "p90_hu": "90th percentile inside",
    "contrast_hu": "mean inside less the mean of the host within 5 mm around",
    "edge_hu_per_mm": "slope across the edge, from 1.2 mm outside to 1.2 mm inside",
    "outer_hu": "mean of the outer 0.6 mm",
    "low_frequency_hu": "spread of the mottling coarser than 1.5 mm",
    "mid_frequency_hu": "spread of the texture from 1.5 to 0.75 mm, noise included",
    "diameter_mm": "diameter of the sphere of equal volume",
}
"""What can be asked for beside a lesion's type; the order is that of the prompt."""
