//! The commands that an operator copies: the dashboard itself does nothing.

use highwater::agent::Status;
use highwater::ids::SnapshotId;

/// Where calls to this server go, and whether they need a token.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// As the browser has called it.
    pub(super) host: String,
    pub(super) token: bool,
}

impl Server {
    /// A call of the JSON-RPC method, with at most one parameter.
    pub(super) fn call(&self, method: &str, name: &str, value: &str) -> String {
        let body = serde_json::json!({
            "jsonrpc": "2.0", "id": 1, "method": method, "params": { name: value },
        });
        let token = match self.token {
            true => "-H \"Authorization: Bearer $HIGHWATER_TOKEN\" ",
            false => "",
        };
        let address = quote(&format!("{}://{}/rpc", self.scheme, self.host));
        format!("curl {token}--json {} {address}", quote(&body.to_string()))
    }

    pub(super) fn back_up(&self, node: &str) -> String {
        self.call("start_backup", "node", node)
    }

    pub(super) fn cancel(&self, operation: &str) -> String {
        self.call("cancel_operation", "id", operation)
    }
}

/// What a restore of the newest snapshot would do; it prints, and changes nothing.
pub(super) fn plan_restore(status: &Status) -> String {
    format!(
        "highwater restore latest {} --vault {} --node {} --plan",
        quote(&status.dir.to_string_lossy()),
        quote(&status.location),
        quote(status.node.as_str()),
    )
}

/// A restore test by the program.
pub(super) fn test_restore(status: &Status) -> String {
    format!("highwater check latest --restore-test {}", vault_and_node(status))
}

/// Says that what a snapshot lacks is missing on purpose.
pub(super) fn acknowledge(status: &Status, snapshot: SnapshotId) -> String {
    format!("highwater snapshots acknowledge {snapshot} --reason '…' {}", vault_and_node(status))
}

/// All snapshots.
pub(super) fn list_snapshots(status: &Status) -> String {
    format!("highwater snapshots {}", vault_and_node(status))
}

fn vault_and_node(status: &Status) -> String {
    format!("--vault {} --node {}", quote(&status.location), quote(status.node.as_str()))
}

/// Finishes what interrupted a restore.
pub(super) fn recover(status: &Status) -> String {
    format!("highwater recover {}", quote(&status.dir.to_string_lossy()))
}

/// All that is recorded of a channel.
pub(super) fn show(status: &Status, channel: &str) -> String {
    let dir = quote(&status.dir.to_string_lossy());
    format!("highwater guard show {dir} {}", argument(channel))
}

/// A release, by an operator who says why.
pub(super) fn release(status: &Status, channel: &str) -> String {
    let dir = quote(&status.dir.to_string_lossy());
    format!("highwater guard release --reason '…' {dir} {}", argument(channel))
}

/// A word that the program must not take for an option.
fn argument(text: &str) -> String {
    if text.starts_with('-') { format!("-- {}", quote(text)) } else { quote(text) }
}

/// A word of a shell's line that stands for itself.
fn quote(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:@%+=,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_each_word_as_it_is() {
        for text in ["plain", "", "two words", "it's", "$(reboot)", "`id`", "a\nb", "\\", "-x"] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", argument(text).replace("-- ", ""))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }

    #[test]
    fn a_call_names_the_server_that_was_called() {
        let server = Server { scheme: "https", host: "node.lan:9753".to_owned(), token: true };
        assert_eq!(
            server.back_up("alice"),
            "curl -H \"Authorization: Bearer $HIGHWATER_TOKEN\" --json \
             '{\"id\":1,\"jsonrpc\":\"2.0\",\"method\":\"start_backup\",\"params\":{\"node\":\"alice\"}}' \
             https://node.lan:9753/rpc"
        );
    }
}
