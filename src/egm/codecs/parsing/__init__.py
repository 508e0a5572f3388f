"""From a model's text to boxes; `reading` states the rules that every codec shares.

Strict JSON comes first, then tags and lists; each lenience is noted as a repair.
"""
