"""The demo: sends a surge of signatures with a known outcome through the whole system, and checks every resulting count.

`petitions` and `surge` say what is sent and what must come of it (pure, fixed seed); `sender` sends it; `watch` looks at
the system from outside; `checks` compares the two; `run` puts them in order.
"""
