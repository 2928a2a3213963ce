"""Painted scans as DICOM: a CT series and a segmentation object for each case."""
