"""How an exported model is asked: lines for a card that run as they are printed, in the folder of the card."""

from __future__ import annotations

import json
import re
from typing import Final

from egm.codecs import Codec
from egm.codecs.describe import describe_codec

EXAMPLE: Final = "example.png"
"""The picture that lies beside the card, SynthRef's `egm.example_picture()`."""
PHRASE: Final = "the cross farthest from the square"
PORT: Final = 8000
"""Where every server of the card listens."""

_EGM = """\
```python
import egm

with egm.Grounder.load(".") as grounder:
    print(grounder.ground("EXAMPLE", "PHRASE").box)  # x1, y1, x2, y2 in pixels
```"""
_SERVERS = """\
Any one of these serves it, where that engine is installed:

```console
$ vllm serve . --port PORT
```

```console
$ python -m sglang.launch_server --model-path . --port PORT
```

```console
$ transformers serve . --port PORT
```

```console
$ egm serve . --port PORT
```

The last starts whichever engine is there, with what keeps boxes in their place. Then it is asked by EGM, or by any
client of the OpenAI protocol:

```console
$ egm ground EXAMPLE "PHRASE" --server http://127.0.0.1:PORT --model . --codec CODEC
```

```python
import base64

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:PORT/v1", api_key="none")
with open("EXAMPLE", "rb") as picture:
    url = "data:image/png;base64," + base64.b64encode(picture.read()).decode()
ask = ASK
content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": ask}]
asked = [{"role": "user", "content": content}]
reply = client.chat.completions.create(model=".", messages=asked, max_tokens=TOKENS, temperature=0)
print(reply.choices[0].message.content)
```"""
_TRANSFORMERS = """\
```python
from transformers import pipeline

ask = ASK
content = [{"type": "image", "path": "EXAMPLE"}, {"type": "text", "text": ask}]
pipe = pipeline("image-text-to-text", model=".")
asked = [{"role": "user", "content": content}]
print(pipe(text=asked, max_new_tokens=TOKENS, return_full_text=False, do_sample=False)[0]["generated_text"])
```"""


def usage(codec: Codec | None, *, max_tokens: int) -> str:
    """Write the section of a card.

    Args:
        codec: How the model's family is asked and read; without one only EGM's lines are known, which take a codec.
        max_tokens: Most tokens of an answer.
    """
    intro = (
        f"These lines run as they are in this folder, on the picture that lies beside them, `{EXAMPLE}`. Elsewhere, "
        "the folder's path, or its name on the Hugging Face Hub, stands in the place of `.`."
    )
    parts = ["## Use", intro, "With EGM:", _EGM]
    if codec is not None:
        about = describe_codec(codec)
        parts += [
            f"With transformers alone. Without EGM, an answer is text, whose box is as the model's family writes it "
            f"(numbers: {about['numbers']}):",
            _TRANSFORMERS,
            f"````text\n{about['example']}\n````\n\nis how it would say that a cup is at 64, 96, 192, 192 in a picture "
            "of 640 x 480 pixels; what stands before a `</think>` is reasoning.",
            _SERVERS,
        ]
    ask = "" if codec is None else str(codec.messages(PHRASE)[0]["content"][-1]["text"])
    values = {"EXAMPLE": EXAMPLE, "PHRASE": PHRASE, "PORT": str(PORT)}
    values |= {"CODEC": "" if codec is None else codec.name, "ASK": json.dumps(ask), "TOKENS": str(max_tokens)}
    return re.sub(rf"\b({'|'.join(values)})\b", lambda found: values[found[1]], "\n\n".join(parts))
