"""Keeps a wallet's values on a VSS server, and brings them back from its words alone:
python replica.py URL WORDS_FILE DATABASE NAME VALUE [new]"""

import sys
from datetime import timedelta

import highwater
from highwater import ClassRule, ReplicaClass

url, words, database, name, value = sys.argv[1:6]
with open(words) as file:
    key = highwater.Key.from_recovery_words(file.read())

options = highwater.ReplicaOptions(
    # Only at the very first start: an empty disk and an empty server are an error otherwise.
    allow_empty=sys.argv[6:] == ["new"],
    # What must not be forgotten is on the server when its write returns, all else soon after.
    rules=[ClassRule(prefix=b"channels/", replicated=ReplicaClass.REMOTE_FIRST)],
)
try:
    server = highwater.VssServer(url, "wallet")
    store = highwater.ReplicatedStore.open(database, key, server, options)
except highwater.Error.Fenced as error:
    sys.exit(f"somebody else has these words in use: {error}")

started = store.started()
print(f"{started.kind.name}: {started.values} values came from the server")
store.write(name.encode(), value.encode())
store.flush(timedelta(seconds=30))
for row in store.scan():
    print(f"{row.key.decode()} = {row.value.decode()}")

# Another machine can go on with the same words now.
store.release()
