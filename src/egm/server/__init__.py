"""A server of our own for small models: the OpenAI protocol over a backend in this process, on one machine.

`python -m egm.server MODEL` starts it, and so does `egm.server.run.serve`; `egm.server.app.build_app` makes the
application alone. For more than one machine, or a large model under load, take an engine: SGLang or vLLM.
"""
