"""The Operative: takes tasks of the types it handles, runs them and reports."""
