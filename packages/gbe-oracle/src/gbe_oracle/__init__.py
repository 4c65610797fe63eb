"""The Oracle: walks the DAG of a job and queues the tasks that are ready."""

from gbe_oracle.contract import Oracle as Oracle
from gbe_oracle.contract import OracleError as OracleError
