//! Streaming subresources of pods: log, exec, attach and port-forward.
