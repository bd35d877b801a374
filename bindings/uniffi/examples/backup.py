"""Backs up a directory and restores it to another place: python backup.py DIRECTORY VAULT COPY"""

import sys

import highwater

directory, location, copy = sys.argv[1:4]
key = highwater.Key.create_file(location + ".key")
vault = highwater.Vault.create(location, key)

report = highwater.backup(vault, directory)
print(f"snapshot {report.snapshot} has {report.bytes_total} bytes")
for warning in report.warnings:
    print("warning:", warning)

options = highwater.RestoreOptions(snapshot=report.snapshot)
restored = highwater.restore(vault, copy, options)
print(f"{restored.bytes} bytes are in {restored.target}")
