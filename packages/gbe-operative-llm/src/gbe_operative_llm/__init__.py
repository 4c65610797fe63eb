"""The llm Operative: a task is a chat completion of an OpenAI-compatible service."""

from gbe_operative_llm.operative import LlmOperative as LlmOperative
