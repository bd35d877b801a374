"""The recovery kit: what a node writes for it, sealed, told, and opened without the vault."""

import os
import shutil

import pytest

import highwater
from highwater import Error, IdentityKey, KitChannel, KitContent, SlotKind

CHANNEL = KitChannel(
    id="17",
    peer="02" + "ab" * 32,
    addresses=["10.0.0.7:9735", "peer.example:9735"],
    funding="ee" * 32 + ":1",
    capacity=5_000_000,
    keys={"channel_keys_id": "0000000000000011"},
)


def content(*channels):
    return KitContent(identity=[IdentityKey("node", b"\x07" * 32)], channels=list(channels))


def test_a_kit_is_sealed_told_and_opened_without_its_vault(node, vault, key, tmp_path):
    highwater.backup(vault, str(node.directory), highwater.BackupOptions(node="alice"))
    file = str(tmp_path / "kit")
    header = highwater.export_kit(vault, str(node.directory), file, content(CHANNEL), node="alice")
    assert header.vault == vault.id() and header.slots == [SlotKind.KEY]
    assert header.bytes == os.path.getsize(file) and header.warnings == []
    assert highwater.show_kit(file) == header
    sealed = open(file, "rb").read()
    assert b"peer.example" not in sealed and b"\x07" * 32 not in sealed

    shutil.rmtree(tmp_path / "vault")
    shutil.rmtree(node.directory)
    kit = highwater.open_kit(file, key)
    assert kit.node == "alice" and kit.uid and kit.time == header.time
    assert kit.content.channels == [CHANNEL]
    [identity] = kit.content.identity
    assert (identity.name(), identity.secret()) == ("node", b"\x07" * 32)
    assert "7" * 8 not in repr(kit) and "x07" not in repr(kit)
    with pytest.raises(Error.Denied) as denied:
        highwater.open_kit(file, highwater.Key.from_passphrase("correct horse battery staple"))
    assert denied.value.entry == file and "show_kit" in denied.value.remedy
    damaged = bytearray(sealed)
    damaged[len(damaged) // 2] ^= 1
    open(file, "wb").write(damaged)
    with pytest.raises(Error.Corrupt):
        highwater.show_kit(file)


def test_a_kit_is_sealed_of_what_the_node_has_written(node, vault, key, tmp_path):
    file = str(tmp_path / "kit")
    with pytest.raises(Error.NotFound) as missing:
        highwater.export_kit(vault, str(node.directory), file)
    assert "export_kit" in missing.value.remedy
    highwater.write_kit_content(str(node.directory), content())
    assert highwater.export_kit(vault, str(node.directory), file).warnings == [
        "there is no channel in the kit"
    ]
    highwater.write_kit_content(str(node.directory), content(CHANNEL))
    with pytest.raises(Error.Conflict):
        highwater.export_kit(vault, str(node.directory), file)
    highwater.export_kit(vault, str(node.directory), file, replace=True)
    assert highwater.open_kit(file, key).content.channels == [CHANNEL]

    # What changes could be used against the node.
    changed = KitChannel(**{**vars(CHANNEL), "keys": {"channel_keys_id": "12"}})
    with pytest.raises(Error.Input):
        highwater.write_kit_content(str(node.directory), content(changed))
    with pytest.raises(Error.Input):
        highwater.write_kit_content(
            str(node.directory), KitContent(identity=[], channels=[CHANNEL])
        )


def test_a_kit_does_not_lie_where_it_would_be_lost(node, vault, tmp_path):
    for place in (node.directory / "kit", tmp_path / "vault" / "kit"):
        with pytest.raises(Error.Input) as refused:
            highwater.export_kit(vault, str(node.directory), str(place), content(CHANNEL))
        assert refused.value.entry == str(place) and not place.exists()
