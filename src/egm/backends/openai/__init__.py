"""Models behind an OpenAI-compatible server: messages out, replies in, faults sorted and retried."""
