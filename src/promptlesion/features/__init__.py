"""Networks that judge images: ImageNet on slices, MedicalNet and a CT network on volumes; none is trained here."""
