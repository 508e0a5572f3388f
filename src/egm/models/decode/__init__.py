"""Batched decoding with a static KV cache: each prompt is read once, all its completions are written side by side."""
