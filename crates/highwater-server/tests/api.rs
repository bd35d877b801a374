//! The remote interface is what is written of it: one table of calls, the definition, the methods that are registered,
//! and `docs/api.md`, which is made of them (`WRITE_DOCS=1` writes it).
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use highwater_server::api::CALLS;
use highwater_server::{Agents, Scope, v1};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::source_code_info::Location;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet,
};

const INTRODUCTION: &str = "# The remote interface

Made of `crates/highwater-server/proto/highwater/v1/highwater.proto` and of the table of calls in
`crates/highwater-server/src/api.rs` by a test; not edited by hand.

An agent (`highwater serve`, or one that a node embeds) answers on one port, 9753 where the settings name no other:

| | |
|---|---|
| gRPC | the services of `highwater.v1` below, health, and reflection as v1 and v1alpha |
| JSON-RPC 2.0 | `POST /rpc`; each call by its name in small letters |
| for people | the dashboard at `/`, `/metrics` for Prometheus, `/healthz` and `/readyz` |

```sh
curl -s http://127.0.0.1:9753/rpc -H 'content-type: application/json' \\
  -d '{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"start_backup\",\"params\":{\"node\":\"alice\"}}'
```

Where the agent has tokens, a caller sends one as `authorization: Bearer TOKEN` (HTTP header, or gRPC metadata); each
call asks for a scope: `read`, `backup` (has `read`) or `admin` (has both). `node` may be left out where the agent serves
one.

Over JSON-RPC the parameters are the fields of the request, by name or in their order; an unknown one is an error. The
answer is a document with the fields of the message, times as text (`2026-11-21T08:30:00Z`), words in small letters, and
what is not known as `null`. Of gRPC, an empty text and a 0 stand for what was left out.

An error has a kind, the same in all of the program: over gRPC in the trailing metadata `highwater-kind`, with
`highwater-hint` where there is a way out; over JSON-RPC in `data.kind` and `data.hint`.
";

fn definition() -> FileDescriptorProto {
    let set: FileDescriptorSet = prost::Message::decode(v1::DESCRIPTORS).unwrap();
    set.file.into_iter().find(|file| file.package() == "highwater.v1").unwrap()
}

/// What stands above something in the definition, in one line.
fn comment(file: &FileDescriptorProto, path: &[i32]) -> String {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let mut here = locations.filter(|location: &&Location| location.path == path);
    let text =
        here.next().map(|location| location.leading_comments().to_owned()).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap()
}

fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

fn kind(field: &FieldDescriptorProto, of: &DescriptorProto) -> String {
    let entry = of.nested_type.iter().find(|nested| {
        nested.name() == short(field.type_name())
            && nested.options.as_ref().is_some_and(|options| options.map_entry())
    });
    if let Some(entry) = entry {
        return format!(
            "map of {} to {}",
            kind(&entry.field[0], entry),
            kind(&entry.field[1], entry)
        );
    }
    let one = match field.r#type() {
        Type::Message if field.type_name() == ".google.protobuf.Timestamp" => "time".to_owned(),
        Type::Message | Type::Enum => {
            let name = short(field.type_name());
            format!("[{name}](#{})", name.to_ascii_lowercase())
        }
        Type::String => "text".to_owned(),
        Type::Bool => "yes or no".to_owned(),
        Type::Bytes => "bytes".to_owned(),
        other => format!("`{}`", format!("{other:?}").to_ascii_lowercase()),
    };
    if field.label() == Label::Repeated { format!("list of {one}") } else { one }
}

fn fields(text: &mut String, file: &FileDescriptorProto, index: usize) {
    let message = &file.message_type[index];
    if message.field.is_empty() {
        return;
    }
    text.push_str("\n| field | type | |\n|---|---|---|\n");
    for (at, field) in message.field.iter().enumerate() {
        let path = [4, i32::try_from(index).unwrap(), 2, i32::try_from(at).unwrap()];
        let comment = comment(file, &path);
        writeln!(text, "| `{}` | {} | {comment} |", field.name(), kind(field, message)).unwrap();
    }
}

fn enumeration(text: &mut String, word: &EnumDescriptorProto) {
    let values = word.value.iter().filter(|value| value.number() != 0);
    let values: Vec<String> = values.map(|value| format!("`{}`", value.name())).collect();
    writeln!(
        text,
        "\n### {}\n\n{}; over JSON-RPC in small letters.",
        word.name(),
        values.join(", ")
    )
    .unwrap();
}

fn document(file: &FileDescriptorProto) -> String {
    let mut text = INTRODUCTION.to_owned();
    let message = |name: &str| {
        file.message_type.iter().position(|message| message.name() == short(name)).unwrap()
    };
    let mut requests = BTreeSet::new();
    for (index, service) in file.service.iter().enumerate() {
        let index = i32::try_from(index).unwrap();
        writeln!(text, "\n## {}\n\n{}", service.name(), comment(file, &[6, index])).unwrap();
        for (at, call) in service.method.iter().enumerate() {
            let name = format!("{}.{}", service.name(), call.name());
            let described = CALLS.iter().find(|described| described.call == name).unwrap();
            let comment = comment(file, &[6, index, 2, i32::try_from(at).unwrap()]);
            writeln!(text, "\n### {}\n\n{comment}\n", call.name()).unwrap();
            let json = match (described.method, described.alias) {
                (Some(method), Some(alias)) => format!("`{method}`, once `{alias}`"),
                (Some(method), None) => format!("`{method}`"),
                (None, _) => "no: it is sent bit by bit".to_owned(),
            };
            let answer = short(call.output_type());
            let many = if call.server_streaming() { "a stream of " } else { "" };
            let anchor = answer.to_ascii_lowercase();
            writeln!(text, "gRPC `highwater.v1.{}/{}`; JSON-RPC {json}; scope `{}`. Answers with {many}[{answer}](#{anchor}).",
                service.name(), call.name(), described.scope.name()).unwrap();
            fields(&mut text, file, message(call.input_type()));
            requests.insert(message(call.input_type()));
        }
    }
    text.push_str("\n## Messages\n");
    for (index, message) in file.message_type.iter().enumerate() {
        if !requests.contains(&index) {
            let comment = comment(file, &[4, i32::try_from(index).unwrap()]);
            writeln!(
                text,
                "\n### {}\n{}{comment}",
                message.name(),
                if comment.is_empty() { "" } else { "\n" }
            )
            .unwrap();
            fields(&mut text, file, index);
        }
    }
    file.enum_type.iter().for_each(|word| enumeration(&mut text, word));
    while text.contains("\n\n\n") {
        text = text.replace("\n\n\n", "\n\n");
    }
    text
}

#[test]
fn every_call_is_in_the_table_and_its_names_follow_one_rule() {
    let file = definition();
    let services = file.service.iter();
    let defined: Vec<String> = services
        .flat_map(|service| {
            service.method.iter().map(|call| format!("{}.{}", service.name(), call.name()))
        })
        .collect();
    assert_eq!(CALLS.map(|call| call.call.to_owned()).to_vec(), defined);
    for (call, method) in CALLS.iter().filter_map(|call| Some((call.call, call.method?))) {
        assert_eq!(method, snake(short(call)));
    }
    let module = highwater_server::module(Agents::default(), Scope::Read).unwrap();
    let registered: BTreeSet<&str> = module.method_names().collect();
    let described = CALLS.iter().flat_map(|call| [call.method, call.alias]).flatten().collect();
    assert_eq!(registered, described);
}

#[test]
fn the_document_of_the_interface_is_what_the_interface_is() {
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md");
    let made = document(&definition());
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(place, &made).unwrap();
    }
    let written = std::fs::read_to_string(place).unwrap();
    assert!(written == made, "docs/api.md is of another interface: WRITE_DOCS=1 writes it");
}
