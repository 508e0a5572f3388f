"""Training: recipes, supervised fine-tuning on rationales, and what both stages share."""
