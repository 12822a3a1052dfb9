"""Exporters: a discovered loss in a form that is used outside this project. One file each."""
