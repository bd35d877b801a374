// Backs up a directory and restores it to another place: its arguments are the directory, a new vault, the copy.

import highwater.*

fun main(arguments: Array<String>) {
    val (directory, location, copy) = arguments
    val vault = Vault.create(location, Key.createFile(location + ".key"))
    val report = backup(vault, directory)
    println("snapshot ${report.snapshot} has ${report.bytesTotal} bytes")
    report.warnings.forEach { println("warning: $it") }
    val restored = restore(vault, copy, RestoreOptions(snapshot = report.snapshot))
    println("${restored.bytes} bytes are in ${restored.target}")
    // An error says what has to be done about it.
    try {
        Vault.create(location, Key.createFile(location + ".other"))
    } catch (error: HighwaterException.Conflict) {
        println("as expected: ${error.kind()}: ${error.problem}")
    }
}
