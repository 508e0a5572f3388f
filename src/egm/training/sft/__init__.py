"""Supervised fine-tuning on rationales."""
