"""The fast path: Qwen3-VL of transformers with the parts replaced that leave a GPU idle, one instance at a time."""
