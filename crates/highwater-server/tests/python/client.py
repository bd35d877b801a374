"""A client that knows nothing but the definition: it calls a server by generated code.

Arguments: the address, a token of scope `backup`, a file for the archive.
"""

import sys

import grpc
from google.protobuf import timestamp_pb2  # noqa: F401
from highwater.v1 import highwater_pb2 as v1
from highwater.v1 import highwater_pb2_grpc as services


def main(address, token, archive):
    channel = grpc.insecure_channel(address)
    backups = services.BackupsStub(channel)
    guard = services.GuardStub(channel)
    known = (("authorization", f"Bearer {token}"),)

    status = backups.GetStatus(v1.GetStatusRequest(), metadata=known)
    assert "backup" in status.capabilities, status
    node = status.nodes[0].node
    assert not status.nodes[0].HasField("age_seconds"), status

    started = backups.StartBackup(v1.StartBackupRequest(node=node), metadata=known)
    seen = list(backups.WatchOperation(v1.WatchOperationRequest(id=started.id), metadata=known))
    last = seen[-1]
    assert last.state == v1.COMPLETED, last
    assert last.bytes_done == last.bytes_total > 0, last
    assert last.finished_at.ToDatetime() >= last.queued_at.ToDatetime(), last

    snapshots = backups.ListSnapshots(v1.ListSnapshotsRequest(node=node), metadata=known).snapshots
    assert [one.snapshot for one in snapshots] == [last.snapshot], snapshots
    assert not guard.ListChannels(v1.ListChannelsRequest(), metadata=known).channels

    header, trailer, size, chunks = None, None, 0, 0
    asked = v1.StreamRequest(node=node, snapshot=last.snapshot)
    with open(archive, "wb") as file:
        for message in backups.Stream(asked, metadata=known):
            part = message.WhichOneof("part")
            assert trailer is None, "something after the trailer"
            if part == "header":
                assert header is None and chunks == 0
                header = message.header
            elif part == "chunk":
                file.write(message.chunk)
                size += len(message.chunk)
                chunks += 1
            else:
                trailer = message.trailer
    assert header.snapshot == trailer.snapshot == last.snapshot
    assert size == header.bytes_total == trailer.bytes > 0
    assert chunks == trailer.chunks and trailer.completed

    refused = [
        (lambda: backups.GetStatus(v1.GetStatusRequest()), "UNAUTHENTICATED", "denied"),
        (
            lambda: backups.GetStatus(
                v1.GetStatusRequest(), metadata=(("authorization", "Bearer hw_wrong"),)
            ),
            "UNAUTHENTICATED",
            "denied",
        ),
        (
            lambda: guard.Release(
                v1.ReleaseRequest(channel="one", reason="known"), metadata=known
            ),
            "PERMISSION_DENIED",
            "denied",
        ),
        (
            lambda: backups.GetOperation(v1.GetOperationRequest(id="7"), metadata=known),
            "INVALID_ARGUMENT",
            "input",
        ),
    ]
    for call, code, kind in refused:
        try:
            call()
        except grpc.RpcError as error:
            assert error.code().name == code, error
            told = dict(error.trailing_metadata())
            assert told["highwater-kind"] == kind, told
        else:
            raise AssertionError(f"no {code}")
    print(last.snapshot)


if __name__ == "__main__":
    main(*sys.argv[1:])
