"""The paper's question at small scale: longer thinking against a bigger model, at equal data, from one recipe.

`recipe` says what is run, `arms` what each arm of it comes to, `folder` how far a folder has got; `run` goes on from
there, `latency` measures, and `results`, `claims` and `report` say what came out.
"""
