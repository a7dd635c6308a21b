"""The demo: a surge of signatures with a known outcome, sent over the whole road, and every count checked at its end.

`petitions` and `surge` say what is sent and what must come of it (pure, fixed seed); `sender` sends it; `watch` looks at
the system from outside; `checks` compares the two; `run` puts them in order.
"""
