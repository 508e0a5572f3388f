"""Is this engine, this checkpoint, this machine right?

`examine_toolkit` says which rows of the toolkit the installed versions can run. `examine_server` holds what an engine
answers to built-in pictures against what the same checkpoint answers in this process, or against a recording of it,
and names the known defect that fits what it saw; `egm.doctor.diagnose` states the rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from egm.lazy import lazy_names

if TYPE_CHECKING:
    from egm.doctor.defects import Defect as Defect
    from egm.doctor.defects import known_defects as known_defects
    from egm.doctor.diagnose import Diagnosis as Diagnosis
    from egm.doctor.diagnose import EngineVerdict as EngineVerdict
    from egm.doctor.diagnose import NamedDefect as NamedDefect
    from egm.doctor.examine import Examination as Examination
    from egm.doctor.examine import examine_backend as examine_backend
    from egm.doctor.examine import examine_server as examine_server
    from egm.doctor.examine import find_reference as find_reference
    from egm.doctor.pictures import built_in_pictures as built_in_pictures
    from egm.doctor.recorder import record as record
    from egm.doctor.recording import Recording as Recording
    from egm.doctor.recording import read_recording as read_recording
    from egm.doctor.recording import write_recording as write_recording
    from egm.doctor.toolkit import Toolkit as Toolkit
    from egm.doctor.toolkit import examine_toolkit as examine_toolkit

__all__ = [
    "Defect",
    "Diagnosis",
    "EngineVerdict",
    "Examination",
    "NamedDefect",
    "Recording",
    "Toolkit",
    "built_in_pictures",
    "examine_backend",
    "examine_server",
    "examine_toolkit",
    "find_reference",
    "known_defects",
    "read_recording",
    "record",
    "write_recording",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "defects": ("Defect", "known_defects"),
        "diagnose": ("Diagnosis", "NamedDefect", "EngineVerdict"),
        "examine": ("Examination", "examine_backend", "examine_server", "find_reference"),
        "pictures": ("built_in_pictures",),
        "recorder": ("record",),
        "recording": ("Recording", "read_recording", "write_recording"),
        "toolkit": ("Toolkit", "examine_toolkit"),
    },
)
