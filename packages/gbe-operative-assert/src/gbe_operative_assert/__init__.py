"""The assert Operative: a task is a command and what is expected of it."""

from gbe_operative_assert.operative import AssertOperative as AssertOperative
