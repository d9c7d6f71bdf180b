"""Policies: what may ride on a sampling run (a recorder, larger pictures). Each is a frozen config whose session overrides some of the
hooks in `core/call.py`. May touch core/ and nn/.
"""
