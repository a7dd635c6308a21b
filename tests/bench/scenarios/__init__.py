"""The scenarios: one module each, with `async def run(arena, scale) -> list[Figure]`."""
