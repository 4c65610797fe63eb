"""The python Operative: a task is a function with typed arguments, or a module that is run."""

import importlib
from typing import TYPE_CHECKING, Any

from gbe_operative_python.context import Context as Context
from gbe_operative_python.context import current as current
from gbe_operative_python.declaring import App as App
from gbe_operative_python.declaring import task as task
from gbe_operative_python.errors import Cancelled as Cancelled
from gbe_operative_python.errors import DeclarationError as DeclarationError
from gbe_operative_python.errors import Reject as Reject
from gbe_operative_python.errors import Retry as Retry
from gbe_operative_python.errors import Skip as Skip
from gbe_operative_python.files import File as File
from gbe_operative_python.results import write_result as write_result

if TYPE_CHECKING:
    from gbe_operative_python.functions import FunctionOperative as FunctionOperative
    from gbe_operative_python.modules import PythonOperative as PythonOperative


def __getattr__(name: str) -> Any:
    # A function's process imports this package, and has no use for the Operative's side of it.
    module = {"FunctionOperative": "functions", "PythonOperative": "modules"}.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
