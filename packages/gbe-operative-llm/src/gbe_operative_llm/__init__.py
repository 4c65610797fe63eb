"""The llm Operative: a task is a chat completion of an OpenAI-compatible service."""
