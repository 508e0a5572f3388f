"""Backends turn messages and pictures into text. They know nothing of boxes.

Importing this imports neither torch nor transformers: `egm.backends.transformers` does.
"""

from egm.backends.base import CARD_SETTINGS, Backend, EngineInfo, GenerationSettings, Request
from egm.backends.remote import RemoteBackend
from egm.backends.replay import ReplayBackend
from egm.backends.scripted import ScriptedBackend

__all__ = [
    "CARD_SETTINGS",
    "Backend",
    "EngineInfo",
    "GenerationSettings",
    "RemoteBackend",
    "ReplayBackend",
    "Request",
    "ScriptedBackend",
]
