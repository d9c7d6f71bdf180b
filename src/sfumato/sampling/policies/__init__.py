"""Policies: what may ride on a sampling run (recorders so far). Each is a frozen config whose session overrides some of the hooks in
`core/call.py`. May touch core/ only.
"""
