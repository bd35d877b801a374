//! `token`: who may call the agent, and for what.

use std::path::PathBuf;

use highwater::{Error, Result};
use highwater_server::{TokenInfo, Tokens};
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::cli::{TokenCommand, TokensFileArgs};
use crate::context::Context;
use crate::{format, places};

pub(crate) fn run(context: &Context, command: &TokenCommand) -> Result<Answer> {
    match command {
        TokenCommand::Add(args) => {
            let file = file(context, &args.file)?;
            let made = Tokens::at(&file).create(&args.label, args.scope, context.env())?;
            let mut json = document(&made.info);
            json["token"] = json!(made.text);
            json["tokens_file"] = json!(places::text(&file));
            let human = format!(
                "{}\n\nIt is shown only this once; {} keeps its hash. Callers send it as\n\
                 Authorization: Bearer TOKEN",
                made.text,
                file.display()
            );
            let mut answer = Answer::new(json, human);
            answer.once = true;
            Ok(answer)
        }
        TokenCommand::List(args) => {
            let tokens = Tokens::at(file(context, args)?).list()?;
            let rows = tokens.iter().map(|token| {
                let scope = token.scope.name().to_owned();
                vec![token.label.clone(), scope, format::time(token.created)]
            });
            let human = format::table(&["LABEL", "SCOPE", "CREATED"], &[], rows.collect());
            let documents: Vec<Value> = tokens.iter().map(document).collect();
            Ok(Answer::new(json!({"tokens": documents}), human))
        }
        TokenCommand::Remove(args) => {
            Tokens::at(file(context, &args.file)?).revoke(&args.label)?;
            let human = format!("Token {} is removed.", args.label);
            Ok(Answer::new(json!({"label": args.label}), human))
        }
    }
}

fn file(context: &Context, args: &TokensFileArgs) -> Result<PathBuf> {
    let settings = || context.settings.agent().tokens_file.clone();
    args.tokens_file.clone().or_else(settings).ok_or_else(|| {
        Error::input("no file of tokens was given")
            .with_remedy("give --tokens-file, or `tokens_file` in highwater.toml")
    })
}

fn document(token: &TokenInfo) -> Value {
    json!({"label": token.label, "scope": token.scope, "created": token.created})
}
