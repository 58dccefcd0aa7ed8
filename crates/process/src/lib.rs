//! What every long-running process of ours needs: logs, signals, drain.
