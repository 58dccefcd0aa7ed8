//! Streaming subresources of pods: log, exec, attach, portforward.
