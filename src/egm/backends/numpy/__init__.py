"""Small Qwen3-VL models in NumPy, without torch."""
