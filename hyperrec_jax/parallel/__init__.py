"""Devices and processes: the mesh, joining a cluster, noticing that a process is gone."""
