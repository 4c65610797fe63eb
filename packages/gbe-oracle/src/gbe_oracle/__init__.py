"""The Oracle: walks the DAG of a job and queues the tasks that are ready."""
