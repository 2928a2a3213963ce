"""PromptLesion."""
