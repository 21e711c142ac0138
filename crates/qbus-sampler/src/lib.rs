//! Reads host, process, cgroup and GPU metrics, and hands them to a closure.
