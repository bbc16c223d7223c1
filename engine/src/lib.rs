//! A container's life: create, start, exec, logs, stop; the monitor.
