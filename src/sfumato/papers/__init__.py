"""The sixty-six published systems: one file each with the claim, the recipe and the check. `claims` runs checks and keeps their records.

Nothing outside this room and the command line knows a paper's name. Importing it loads no torch: a paper's file is imported when checked.
"""
